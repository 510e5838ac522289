#include "apps/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "proto/base/json.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

json::object Parsed(const std::string& text) { return json::parse(text).as_object(); }

std::vector<std::string> Keys(const json::object& object) {
  std::vector<std::string> keys;
  for (const auto& field : object) keys.push_back(std::string(field.key()));
  return keys;
}

Answer SampleAnswer() {
  Answer answer{
      .text = "It is \"42\".\n", .finish_reason = "stop", .documents = {"doc-1"}, .usage = {}, .receipt = {}};
  answer.usage.set_prompt_tokens(100);
  answer.usage.set_completion_tokens(5);
  answer.usage.set_cached_tokens(64);
  answer.receipt.set_policy("full");
  answer.receipt.set_resident_tokens(100);
  answer.receipt.mutable_seconds()->set_prefill(0.25);
  answer.receipt.add_degraded("none of it");
  answer.receipt.set_workers(1);
  return answer;
}

TEST(ResultsTest, AnswerHasEveryFieldOfTheContract) {
  const json::object answer = Parsed(AnswerJson(SampleAnswer()));
  EXPECT_THAT(Keys(answer), ElementsAre("answer", "finish_reason", "documents", "usage", "receipt"));
  EXPECT_EQ(answer.at("answer").as_string(), "It is \"42\".\n");
  EXPECT_EQ(answer.at("documents").as_array().at(0).as_string(), "doc-1");
  const json::object& usage = answer.at("usage").as_object();
  EXPECT_THAT(Keys(usage), ElementsAre("prompt_tokens", "completion_tokens", "prompt_tokens_details"));
  EXPECT_EQ(usage.at("prompt_tokens_details").at("cached_tokens").as_int64(), 64);
  const json::object& receipt = answer.at("receipt").as_object();
  EXPECT_THAT(Keys(receipt),
              ElementsAre("policy", "recall", "prefill", "prefill_reason", "question", "prompt_tokens",
                          "resident_tokens", "device_bytes", "spilled_bytes", "recalled", "recomputed_tokens",
                          "degraded", "seconds", "tokens_per_second", "workers", "cached_tokens",
                          "encryption", "ssd_format", "load_price", "resident_tokens_end", "host_format"));
  EXPECT_THAT(Keys(receipt.at("device_bytes").as_object()), ElementsAre("resident", "digests", "peak"));
  EXPECT_THAT(Keys(receipt.at("spilled_bytes").as_object()), ElementsAre("host", "ssd"));
  EXPECT_THAT(Keys(receipt.at("recalled").as_object()), ElementsAre("device", "host", "ssd", "remote"));
  EXPECT_THAT(Keys(receipt.at("recalled").at("ssd").as_object()), ElementsAre("slices", "bytes"));
  EXPECT_THAT(Keys(receipt.at("seconds").as_object()),
              ElementsAre("queue", "load", "prefill", "recall", "decode", "first_token", "compress"));
  EXPECT_THAT(Keys(receipt.at("tokens_per_second").as_object()), ElementsAre("prefill", "decode"));
  EXPECT_EQ(receipt.at("degraded").as_array().at(0).as_string(), "none of it");
}

TEST(ResultsTest, CountsAreIntegersAndMeasuresAreReal) {
  const json::object receipt = Parsed(AnswerJson(SampleAnswer())).at("receipt").as_object();
  EXPECT_TRUE(receipt.at("prompt_tokens").is_int64());
  EXPECT_TRUE(receipt.at("workers").is_int64());
  EXPECT_TRUE(receipt.at("device_bytes").at("peak").is_int64());
  EXPECT_TRUE(receipt.at("resident_tokens").is_double());
  EXPECT_TRUE(receipt.at("seconds").at("queue").is_double());
  EXPECT_EQ(receipt.at("seconds").at("prefill").as_double(), 0.25);
}

TEST(ResultsTest, JsonIsOneLineWithPlainNumbers) {
  const std::string text = AnswerJson(SampleAnswer());
  EXPECT_THAT(text, Not(HasSubstr("\n")));
  EXPECT_THAT(text, HasSubstr("\"prefill\": 0.25"));
  EXPECT_THAT(text, HasSubstr("\"resident_tokens\": 100.0"));
}

TEST(ResultsTest, WhatIsNoNumberIsNull) {
  EXPECT_EQ(PrintJson(json::array{std::nan(""), 1.0 / 3, 1e300}), "[null, 0.3333333333333333, 1e+300]");
}

TEST(ResultsTest, IngestHasEveryFieldOfTheContract) {
  IngestedDocument document;
  document.info = {.id = "doc-1", .path = "first.txt", .bytes = 400, .tokens = 100};
  document.path = "second.txt";
  document.blocks = 60;
  document.host_bytes = 4096;
  document.ssd_bytes = 2048;
  document.seconds = 0.5;
  document.already_known = true;
  const json::object ingest = Parsed(IngestJson(std::vector{document}, {}));
  EXPECT_THAT(Keys(ingest), ElementsAre("documents"));
  const json::object& one = ingest.at("documents").as_array().at(0).as_object();
  EXPECT_THAT(Keys(one), ElementsAre("id", "path", "bytes", "tokens", "blocks", "tier_bytes", "seconds",
                                     "tokens_per_second", "already_known"));
  EXPECT_EQ(one.at("path").as_string(), "second.txt");
  EXPECT_EQ(one.at("tier_bytes").at("host").as_int64(), 4096);
  EXPECT_EQ(one.at("tier_bytes").at("ssd").as_int64(), 2048);
  EXPECT_EQ(one.at("tokens_per_second").as_double(), 200);
  EXPECT_TRUE(one.at("already_known").as_bool());
}

TEST(ResultsTest, FailedDocumentsAreListedBesideTheOthers) {
  const json::object ingest = Parsed(IngestJson({}, std::vector<FailedDocument>{{"a.txt", "is empty"}}));
  EXPECT_EQ(ingest.at("failed").as_array().at(0).at("path").as_string(), "a.txt");
}

TEST(ResultsTest, PathThatIsNotUtf8StaysValidJson) {
  IngestedDocument document;
  document.path = "a\xff.txt";
  document.info.path = document.path;
  EXPECT_EQ(
      Parsed(IngestJson(std::vector{document}, {})).at("documents").as_array().at(0).at("path").as_string(),
      "a\\xff.txt");
  EXPECT_EQ(Parsed(DocumentsJson(std::vector{document.info}))
                .at("documents")
                .as_array()
                .at(0)
                .at("path")
                .as_string(),
            "a\\xff.txt");
}

TEST(ResultsTest, InspectionListsTokensWithLogitAndLogProbability) {
  const Inspection inspection{.ids = {1, 2}, .top = {{7, 1.5f, -0.25}}, .generated = {7, 9}};
  EXPECT_EQ(InspectionJson(std::span(&inspection, 1)),
            R"({"ids": [1, 2], "top": [[7, 1.5, -0.25]], "generated": [7, 9]})");
  const std::vector<Inspection> two = {inspection,
                                       {.ids = {1, 2}, .generated = {8}, .policy = "knorm", .kept = {{{0}}}}};
  EXPECT_EQ(InspectionJson(two),
            R"({"ids": [1, 2], "top": [[7, 1.5, -0.25]], "generated": [7, 9], )"
            R"("other": {"top": [], "policy": "knorm", "kept": [[[0]]], "generated": [8]}})");
}

TEST(ResultsTest, DocumentShowsItsTextAfterItsDescription) {
  Document document;
  document.info = {.id = "doc-1", .path = "a.txt", .bytes = 5, .tokens = 2, .created_unix_ms = 1769860800000};
  document.text = "Hello";
  const std::string text = DocumentText(document);
  EXPECT_THAT(text, HasSubstr("2026-01-31 12:00:00 UTC"));
  EXPECT_TRUE(text.ends_with("\n\nHello\n"));
  EXPECT_EQ(Parsed(DocumentJson(document)).at("text").as_string(), "Hello");
}

TEST(ResultsTest, NoDocumentsSayHowToAddOne) {
  EXPECT_THAT(DocumentsText({}), HasSubstr("palimpsest ingest"));
  EXPECT_EQ(DocumentsJson({}), R"({"documents": []})");
}

TEST(ResultsTest, TokenIdsAreAnArrayOfWholeNumbers) {
  EXPECT_THAT(*ParseTokenIds("[1, 2, 49151]", "f"), ElementsAre(1, 2, 49151));
  EXPECT_TRUE(ParseTokenIds("[]", "f")->empty());
  for (const char* bad : {"", "{}", "[1.5]", "[-1]", "[3000000000]", "[\"a\"]", "[1", "nul"}) {
    const auto ids = ParseTokenIds(bad, "ids.json");
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("ids.json")) << bad;
  }
}

}  // namespace
}  // namespace palimpsest
