#include "proto/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { InitLog({}); }
  void Start(LogLevel level, LogFormat format = LogFormat::kText) {
    InitLog({.level = level, .format = format, .sink = [this](std::string_view line) {
               lines_.emplace_back(line);
             }});
  }
  const std::string& Only() {
    EXPECT_EQ(lines_.size(), 1u);
    if (lines_.empty()) lines_.emplace_back();
    return lines_[0];
  }
  std::vector<std::string> lines_;  // the sink is called one line at a time
};

TEST_F(LogTest, ATextLineIsTimeLevelMessage) {
  Start(LogLevel::kInfo);
  PALIMPSEST_LOG(kWarn, "tier slow read_ms {} tier {}", 12.5, "ssd");
  EXPECT_THAT(Only(), MatchesRegex("20..-..-..T..:..:..\\....Z warn  tier slow read_ms 12.5 tier ssd\n"));
}

TEST_F(LogTest, AJsonLineIsOneObject) {
  Start(LogLevel::kInfo, LogFormat::kJson);
  PALIMPSEST_LOG(kInfo, "opened \"{}\"", LogName("a\\b"));
  EXPECT_THAT(Only(),
              MatchesRegex("\\{\"time\":\"20[^\"]*Z\",\"level\":\"info\",\"source\":\"log_test.cc:[0-9]+\","
                           "\"message\":\"opened .*\"\\}\n"));
  EXPECT_THAT(Only(), HasSubstr(R"("message":"opened \"a\\\\b\"")"));
}

TEST_F(LogTest, LinesBelowTheLevelEvaluateNothing) {
  Start(LogLevel::kWarn);
  int evaluated = 0;
  PALIMPSEST_LOG(kInfo, "count {}", ++evaluated);
  EXPECT_EQ(evaluated, 0);
  PALIMPSEST_LOG(kError, "count {}", ++evaluated);
  EXPECT_EQ(evaluated, 1);
  EXPECT_THAT(Only(), HasSubstr(" error count 1\n"));
}

TEST_F(LogTest, OffSilencesErrorsToo) {
  Start(LogLevel::kOff);
  PALIMPSEST_LOG(kError, "lost");
  EXPECT_TRUE(lines_.empty());
}

TEST_F(LogTest, RedactedShowsLengthAndHashOnly) {
  Start(LogLevel::kInfo);
  PALIMPSEST_LOG(kInfo, "prompt {}", Redacted("the secret text"));
  EXPECT_THAT(Only(), ContainsRegex("prompt \\[15 bytes [0-9a-f]{8}\\]\n"));
  EXPECT_THAT(Only(), Not(HasSubstr("secret")));
}

TEST_F(LogTest, RedactedTellsEqualTextsFromOthersWithinAProcess) {
  EXPECT_EQ(Redacted("a").ToString(), Redacted("a").ToString());
  EXPECT_NE(Redacted("a").ToString(), Redacted("b").ToString());
  EXPECT_NE(Redacted("a").ToString(), "[1 bytes ca978112]") << "the plain SHA-256 of a guess must not match";
}

TEST_F(LogTest, AHostileNameCannotForgeALine) {
  Start(LogLevel::kInfo);
  PALIMPSEST_LOG(kInfo, "path {}", LogName("a\n2026-01-01T00:00:00.000Z error forged\x1b[2J"));
  EXPECT_EQ(std::count(Only().begin(), Only().end(), '\n'), 1);
  EXPECT_EQ(Only().find('\x1b'), std::string::npos);
}

TEST_F(LogTest, ALongNameIsCut) {
  Start(LogLevel::kInfo);
  PALIMPSEST_LOG(kInfo, "path {}", LogName(std::string(100'000, 'x')));
  EXPECT_LT(Only().size(), 400u);
}

TEST_F(LogTest, AStatusIsLoggedWithItsCode) {
  Start(LogLevel::kInfo);
  PALIMPSEST_LOG(kWarn, "recall failed: {}", NotFound("document {}", "doc-1"));
  EXPECT_THAT(Only(), HasSubstr("recall failed: NOT_FOUND: document doc-1"));
}

TEST_F(LogTest, OnlyNumbersLiteralsStatusesAndWrappersAreLoggable) {
  using log_internal::kIsLoggable;
  static_assert(kIsLoggable<int> && kIsLoggable<double> && kIsLoggable<bool> && kIsLoggable<const char[4]>);
  static_assert(kIsLoggable<LogName> && kIsLoggable<Redacted> && kIsLoggable<absl::Status>);
  static_assert(!kIsLoggable<std::string> && !kIsLoggable<std::string_view> && !kIsLoggable<const char*>);
  static_assert(!kIsLoggable<char[4]> && !kIsLoggable<const void*> && !kIsLoggable<std::vector<int>>);
}

TEST_F(LogTest, LinesOfManyThreadsStayWhole) {
  Start(LogLevel::kInfo);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 100; ++i) PALIMPSEST_LOG(kInfo, "thread {} line {} end", t, i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(lines_.size(), 400u);
  for (const std::string& line : lines_)
    EXPECT_THAT(line, MatchesRegex(".* info  thread . line [0-9]+ end\n"));
}

TEST(ParseLogLevelTest, KnowsItsNamesAndNoOthers) {
  EXPECT_EQ(*ParseLogLevel("trace"), LogLevel::kTrace);
  EXPECT_EQ(*ParseLogLevel("off"), LogLevel::kOff);
  EXPECT_FALSE(ParseLogLevel("INFO").ok());
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_FALSE(ParseLogFormat("xml").ok());
}

}  // namespace
}  // namespace palimpsest
