// Ids against those that tests/testing/tokenizer_oracle.py computes: from the checked-in fixture always, and
// from a run of the script where PALIMPSEST_TEST_PYTHON is a Python with `regex`.
#include <gtest/gtest.h>

#include <cstdlib>

#include "proto/base/status.h"
#include "tests/testing/json.h"
#include "text/tokenizer.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

constexpr const char* kSplits[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

// Compares all cases of all splits; returns how many each split has.
size_t CheckAll(const json::value& oracle) {
  size_t cases_min = SIZE_MAX;
  for (const char* split : kSplits) {
    TokenizerData data;
    data.pre = split;
    data.tokens = json::value_to<std::vector<std::string>>(oracle.at("tokens"));
    data.types = json::value_to<std::vector<int32_t>>(oracle.at("types"));
    data.merges = json::value_to<std::vector<std::string>>(oracle.at("merges"));
    const auto tokenizer = Tokenizer::Create(std::move(data));
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (!tokenizer.ok()) return 0;
    const json::array& cases = oracle.at(split).as_array();
    cases_min = std::min(cases_min, cases.size());
    for (const json::value& one : cases) {
      const std::string text(one.at("text").as_string());
      const auto special =
          one.at("special").as_bool() ? Tokenizer::Special::kParse : Tokenizer::Special::kAsText;
      const auto ids = (*tokenizer)->Encode(text, special);
      EXPECT_TRUE(ids.ok()) << ids.status();
      if (!ids.ok()) continue;
      EXPECT_EQ(*ids, json::value_to<std::vector<int32_t>>(one.at("ids"))) << split << ": " << one;
    }
  }
  return cases_min;
}

TEST(TokenizerOracleTest, IdsAreThoseOfTheFixture) {
  const json::value oracle =
      testing::ReadJsonOrFail(PALIMPSEST_SOURCE_DIR "/tests/text/tokenizer_fixture.json");
  EXPECT_GE(CheckAll(oracle), 50u);
}

TEST(TokenizerOracleTest, IdsAreThoseOfPythonsRegexAndPlainMerging) {
  const char* python = std::getenv("PALIMPSEST_TEST_PYTHON");
  if (python == nullptr)
    GTEST_SKIP() << "PALIMPSEST_TEST_PYTHON is not set (a Python with the package regex)";
  const std::string out = ::testing::TempDir() + "tokenizer_oracle.json";
  const std::string command =
      fmt::format("'{}' '{}/tests/testing/tokenizer_oracle.py' '{}'", python, PALIMPSEST_SOURCE_DIR, out);
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  EXPECT_GE(CheckAll(testing::ReadJsonOrFail(out)), 500u);
}

}  // namespace
}  // namespace palimpsest
