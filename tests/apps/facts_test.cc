// Facts that the quick-start model finds, asked in one process as `palimpsest ask` does: those of the sample
// document, and a seven-digit number hidden in prose. Dense attention finds the number always; whoever loses
// it is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "apps/embedded.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "tests/testing/golden.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

// Asked without the second sentence, this model answers 3,000 tokens with the needle at depth 0 by "the
// number of the island", in plain float arithmetic too.
constexpr char kQuestion[] = "What is the secret number of the harbor? Answer with the number only.";
const std::string kSample = PALIMPSEST_SOURCE_DIR "/deploy/sample";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  PALIMPSEST_CHECK(!text.str().empty(), "{} is empty or missing", path);
  return text.str();
}

std::vector<std::string> Split(const std::string& text, std::string_view separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

class FactsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::TestModel()) GTEST_SKIP() << testing::kNoModel;
    Config config;
    config.data_dir = folder_.path() + "/data";
    config.model = *testing::TestModel();
    config.threads.pin = false;  // other tests run beside this one
    auto embedded = Embedded::Open(config, {});
    ASSERT_TRUE(embedded.ok()) << embedded.status();
    embedded_ = std::move(*embedded);
  }

  Answer Ask(const std::string& document, const std::string& text) {
    Question question;
    question.documents = {document};
    question.messages = {{.role = "user", .content = text}};
    question.sampling = GreedySampling(48);
    auto answer = embedded_->Ask(question);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? std::move(*answer) : Answer();
  }

  // About `tokens` tokens of the sample's prose, with the needle after the first sentence at `depth`.
  std::string Prose(int64_t tokens, double depth, const std::string& needle) {
    constexpr int64_t kBytesPerToken = 4;
    std::vector<std::string> paragraphs;
    int64_t bytes = 0;
    for (std::string& paragraph : Split(ReadFile(kSample + "/lighthouse.md"), "\n\n")) {
      if (paragraph.starts_with("#") || paragraph.find("secret number") != std::string::npos) continue;
      bytes += static_cast<int64_t>(paragraph.size()) + 2;
      if (bytes > tokens * kBytesPerToken) break;
      paragraphs.push_back(std::move(paragraph));
    }
    std::string& place = paragraphs[static_cast<size_t>(depth * static_cast<double>(paragraphs.size()))];
    const size_t sentence = place.find(". ");
    place.insert(sentence == std::string::npos ? place.size() : sentence + 1, " " + needle);
    return fmt::format("{}", fmt::join(paragraphs, "\n\n"));
  }

  // Depths from the end: what stands before the needle is read once.
  void ExpectFound(int64_t tokens) {
    RngSequence numbers{Rng(static_cast<uint64_t>(tokens))};
    for (const double depth : {0.95, 0.75, 0.5, 0.25, 0.0}) {
      const int64_t number = 1'000'000 + static_cast<int64_t>(numbers.Below(9'000'000));
      const std::string path = folder_.path() + "/prose.md";
      std::ofstream(path) << Prose(tokens, depth,
                                   fmt::format("The secret number of the harbor is {}.", number));
      const Answer answer = Ask(path, kQuestion);
      EXPECT_THAT(answer.text, HasSubstr(fmt::format("{}", number))) << "depth " << depth;
      EXPECT_GT(answer.usage.prompt_tokens(), tokens * 3 / 4);
      EXPECT_LT(answer.usage.prompt_tokens(), tokens * 5 / 4);
    }
  }

  TemporaryFolder folder_;
  std::unique_ptr<Embedded> embedded_;
};

TEST_F(FactsTest, EveryQuestionOfTheSampleIsAnsweredAndTheDocumentReadOnce) {
  int64_t asked = 0;
  for (const std::string& line : Split(ReadFile(kSample + "/questions.txt"), "\n")) {
    if (line.empty() || line.starts_with("#")) continue;
    const std::vector<std::string> fields = Split(line, "\t");
    ASSERT_EQ(fields.size(), 2u) << line;
    const Answer answer = Ask(kSample + "/lighthouse.md", fields[0]);
    EXPECT_THAT(answer.text, HasSubstr(fields[1])) << fields[0];
    EXPECT_EQ(answer.usage.cached_tokens() > 3000, asked++ > 0);
  }
  EXPECT_GE(asked, 5);
}

TEST_F(FactsTest, NumberIsFoundIn1000Tokens) { ExpectFound(1000); }
TEST_F(FactsTest, NumberIsFoundIn2000Tokens) { ExpectFound(2000); }
TEST_F(FactsTest, NumberIsFoundIn3500Tokens) { ExpectFound(3500); }

}  // namespace
}  // namespace palimpsest
