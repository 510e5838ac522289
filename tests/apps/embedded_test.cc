// The coordinator and the worker in one process, over a tiny random model: what is kept, found again and
// refused.
#include "apps/embedded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"
#include "tests/testing/tiny_model.h"

namespace palimpsest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kWindow = 1024;

class EmbeddedTest : public ::testing::Test {
 protected:
  EmbeddedTest() {
    config_.data_dir = folder_.path() + "/data";
    config_.model = folder_.path() + "/tiny.gguf";
    config_.threads.count = 2;
    config_.threads.pin = false;
    config_.device.arena_bytes = 64 << 20;
    config_.prefill.chunk_tokens = 128;
    const absl::Status written = testing::WriteTinyModel({.context = kWindow}, config_.model);
    PALIMPSEST_CHECK(written.ok(), "{}", Message(written));
  }

  std::unique_ptr<Embedded> OpenEmbedded(const CancelToken& cancel = CancelToken::Never()) const {
    auto embedded = Embedded::Open(config_, {.cancel = &cancel, .progress = NoProgress()});
    PALIMPSEST_CHECK(embedded.ok(), "{}", Message(embedded.status()));
    return std::move(*embedded);
  }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_.path() + "/" + name) << text;
    return folder_.path() + "/" + name;
  }
  static Question Ask(std::vector<std::string> documents, std::string text = "What is it?") {
    Question question;
    question.documents = std::move(documents);
    question.messages = {{.role = "user", .content = std::move(text)}};
    question.sampling = GreedySampling(4);
    return question;
  }
  // Letters without merges: one token each, unlike every time.
  static std::string Text(int64_t tokens) {
    std::string text;
    for (int64_t i = 0; i < tokens; ++i) text += static_cast<char>('!' + (i * i + i / 7) % 90);
    return text;
  }

  TemporaryFolder folder_;
  Config config_;
};

std::string ErrorOf(const absl::Status& status, absl::StatusCode code) {
  EXPECT_EQ(status.code(), code) << status;
  return Message(status);
}

TEST_F(EmbeddedTest, SecondQuestionAboutADocumentDoesNotPrefillItAgain) {
  const auto embedded = OpenEmbedded();
  const std::string path = Write("a.txt", Text(300));
  const auto first = embedded->Ask(Ask({path}));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->usage.cached_tokens(), 0);
  const auto second = embedded->Ask(Ask({path}, "And now another question?"));
  ASSERT_TRUE(second.ok()) << second.status();
  const auto list = embedded->coordinator().ListDocuments("");
  ASSERT_TRUE(list.ok());
  EXPECT_GE(second->usage.cached_tokens(), list->front().info.tokens);
  EXPECT_EQ(second->receipt.recomputed_tokens(), 0);
  const auto by_id = embedded->Ask(Ask({first->documents.front()}));
  ASSERT_TRUE(by_id.ok()) << by_id.status();
  EXPECT_EQ(by_id->usage.cached_tokens(), second->usage.cached_tokens());
  EXPECT_EQ(by_id->text, first->text) << "an answer from cache is the answer that was computed";
}

TEST_F(EmbeddedTest, IngestedDocumentIsReadOnce) {
  const auto embedded = OpenEmbedded();
  const auto ingested = embedded->Ingest("a.txt", Text(300));
  ASSERT_TRUE(ingested.ok()) << ingested.status();
  EXPECT_FALSE(ingested->already_known);
  EXPECT_EQ(ingested->info.bytes, 300);
  EXPECT_EQ(ingested->blocks, (ingested->info.tokens + 63) / 64 * 2) << "2 layers";
  EXPECT_GT(ingested->host_bytes, 0);
  EXPECT_GT(ingested->ssd_bytes, 0);
  const auto answer = embedded->Ask(Ask({ingested->info.id}));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_GE(answer->usage.cached_tokens(), ingested->info.tokens);
  const auto again = embedded->Ingest("b.txt", Text(300));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->already_known);
  EXPECT_EQ(again->info.id, ingested->info.id);
}

TEST_F(EmbeddedTest, DocumentsAndTheirKvSurviveARestart) {
  std::string id, text;
  {
    const auto first = OpenEmbedded()->Ask(Ask({Write("a.txt", Text(300))}));
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(first->receipt.recomputed_tokens(), 0) << "it was new";
    id = first->documents.front();
    text = first->text;
  }
  const auto second = OpenEmbedded()->Ask(Ask({id}));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_GT(second->usage.cached_tokens(), 200);
  EXPECT_EQ(second->receipt.cached_tokens().ssd(), second->usage.cached_tokens());
  EXPECT_EQ(second->receipt.recomputed_tokens(), 0);
  EXPECT_EQ(second->receipt.encryption(), "aes-256-gcm");
  EXPECT_EQ(second->text, text);
}

TEST_F(EmbeddedTest, AnswerComesInPiecesThatMakeItsText) {
  const auto embedded = OpenEmbedded();
  std::string pieces;
  Question question = Ask({});
  question.sampling.set_max_tokens(32);
  question.on_text = [&](std::string_view text) { pieces += text; };
  const auto answer = embedded->Ask(question);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(pieces, answer->text);
  EXPECT_TRUE(answer->documents.empty());
}

TEST_F(EmbeddedTest, WithoutTheSsdTierKvIsComputedAgain) {
  config_.ssd.enabled = false;
  const std::string path = Write("a.txt", Text(300));
  const auto first = OpenEmbedded()->Ask(Ask({path}));
  const auto second = OpenEmbedded()->Ask(Ask({path}));
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_EQ(second->usage.cached_tokens(), 0);
  EXPECT_GT(second->receipt.recomputed_tokens(), 200);
  EXPECT_EQ(second->text, first->text);
  EXPECT_EQ(second->receipt.encryption(), "");
  EXPECT_FALSE(std::filesystem::exists(config_.data_dir + "/tier/0"));
}

// Another data folder has other keys, and the same folder without its key file has none.
TEST_F(EmbeddedTest, WithoutTheKeyFileNothingStarts) {
  const std::string path = Write("a.txt", Text(300));
  ASSERT_TRUE(OpenEmbedded()->Ask(Ask({path})).ok());
  ASSERT_TRUE(std::filesystem::remove(config_.data_dir + "/keys/tier.key"));
  const auto opened = Embedded::Open(config_, {});
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition) << opened.status();
  EXPECT_NE(std::string(opened.status().message()).find("tier.key"), std::string::npos) << opened.status();
}

TEST_F(EmbeddedTest, QuestionWithoutDocumentsOpensNoCatalog) {
  ASSERT_TRUE(OpenEmbedded()->Ask(Ask({})).ok());
  EXPECT_FALSE(std::filesystem::exists(config_.data_dir + "/catalog"));
}

TEST_F(EmbeddedTest, SeveralDocumentsAreOnePrompt) {
  const auto embedded = OpenEmbedded();
  const std::string a = Write("a.txt", Text(100)), b = Write("b.txt", Text(200));
  const auto both = embedded->Ask(Ask({a, b}));
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->documents.size(), 2u);
  EXPECT_THAT(both->receipt.prefill_reason(), HasSubstr("2 documents"));
  const auto again = embedded->Ask(Ask({a, b}, "Else?"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_GT(again->usage.cached_tokens(), 200);
}

TEST_F(EmbeddedTest, ExactPrefillBeyondTheWindowIsRefusedWithBothNumbers) {
  const auto embedded = OpenEmbedded();
  Question question = Ask({Write("long.txt", Text(3 * kWindow))});
  question.options.prefill = PrefillChoice::kExact;
  EXPECT_THAT(ErrorOf(embedded->Ask(question).status(), absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("tokens (3033 of the document"), HasSubstr("was trained for 1024")));
}

TEST_F(EmbeddedTest, UnknownDocumentsAreNamed) {
  const auto embedded = OpenEmbedded();
  EXPECT_THAT(ErrorOf(embedded->Ask(Ask({"doc-0123456789abcdef"})).status(), absl::StatusCode::kNotFound),
              HasSubstr("doc-0123456789abcdef"));
  EXPECT_THAT(ErrorOf(embedded->Ask(Ask({"none.txt"})).status(), absl::StatusCode::kNotFound),
              AllOf(HasSubstr("none.txt"), HasSubstr("documents list")));
}

TEST_F(EmbeddedTest, InterruptedIngestKeepsTheTextAndGoesOn) {
  {
    CancelToken cancel;
    const auto embedded = Embedded::Open(config_, {.cancel = &cancel, .progress = NoProgress()});
    ASSERT_TRUE(embedded.ok()) << embedded.status();
    ASSERT_TRUE((*embedded)->Ingest("first.txt", Text(100)).ok());
    // The token is set while the catalog has the text and the prompt has not been read.
    cancel.Set();
    EXPECT_EQ((*embedded)->Ingest("a.txt", Text(300)).status().code(), absl::StatusCode::kCancelled);
  }
  const auto embedded = OpenEmbedded();
  const auto known = embedded->Ingest("first.txt", Text(100));
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_TRUE(known->already_known);
  EXPECT_TRUE(embedded->Ingest("a.txt", Text(300)).ok());
}

TEST_F(EmbeddedTest, ArenaTooSmallSaysBothSizes) {
  config_.device.arena_bytes = 64 << 10;
  const auto answer = OpenEmbedded()->Ask(Ask({Write("a.txt", Text(900))}));
  EXPECT_THAT(ErrorOf(answer.status(), absl::StatusCode::kResourceExhausted),
              HasSubstr("device.arena_bytes"));
}

TEST_F(EmbeddedTest, FolderInUseNamesTheProcess) {
  const auto first = OpenEmbedded();
  ASSERT_TRUE(first->Check().ok());
  EXPECT_THAT(ErrorOf(OpenEmbedded()->Check(), absl::StatusCode::kFailedPrecondition),
              HasSubstr(fmt::format("process {}", ::getpid())));
}

TEST_F(EmbeddedTest, ModelIsFoundByItsNameInTheDataFolder) {
  std::filesystem::create_directories(config_.data_dir + "/models");
  std::filesystem::rename(config_.model, config_.data_dir + "/models/tiny.gguf");
  for (const char* name : {"tiny", "tiny.gguf"}) {
    config_.model = name;
    EXPECT_EQ(*FindModelFile(config_), config_.data_dir + "/models/tiny.gguf");
  }
  config_.model = "tinny";
  EXPECT_THAT(ErrorOf(FindModelFile(config_).status(), absl::StatusCode::kNotFound),
              AllOf(HasSubstr("tinny"), HasSubstr("there are: tiny.gguf")));
  config_.model = "";
  EXPECT_THAT(ErrorOf(FindModelFile(config_).status(), absl::StatusCode::kNotFound),
              HasSubstr("deploy/quickstart.sh"));
  config_.model = "./none.gguf";
  EXPECT_THAT(ErrorOf(FindModelFile(config_).status(), absl::StatusCode::kNotFound),
              HasSubstr("./none.gguf"));
}

}  // namespace
}  // namespace palimpsest
