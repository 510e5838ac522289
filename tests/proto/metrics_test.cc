#include "proto/base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <thread>

namespace palimpsest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, TheSameNameAndLabelsGiveTheSameHandle) {
  const auto metrics = Metrics::Create();
  MetricCounter& one = metrics->Counter("palimpsest_x_total", "x", {{"code", "200"}});
  MetricCounter& other = metrics->Counter("palimpsest_x_total", "another text", {{"code", "404"}});
  EXPECT_EQ(&one, &metrics->Counter("palimpsest_x_total", "x", {{"code", "200"}}));
  EXPECT_NE(&one, &other);
  one.Add();
  one.Add(2);
  EXPECT_THAT(metrics->Text(), HasSubstr("palimpsest_x_total{code=\"200\"} 3"));
  EXPECT_THAT(metrics->Text(), Not(HasSubstr("another text")));
}

TEST(Metrics, EveryLineIsACommentOrANameAndANumber) {
  const auto metrics = Metrics::Create();
  metrics->Counter("palimpsest_a_total", "with \"quotes\"", {{"route", "/v1/{id}"}}).Add();
  metrics->Gauge("palimpsest_b_bytes", "b").Set(1.5);
  metrics->Histogram("palimpsest_c_seconds", "c", RequestBuckets()).Observe(0.3);
  std::istringstream lines(metrics->Text());
  int samples = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# ")) continue;
    ++samples;
    ASSERT_TRUE(line.starts_with("palimpsest_")) << line;
    const std::string number = line.substr(line.rfind(' ') + 1);
    EXPECT_NO_THROW(std::stod(number)) << line;
  }
  EXPECT_EQ(samples, 2 + static_cast<int>(RequestBuckets().size()) + 3);  // +Inf, sum, count
}

TEST(Metrics, FirstTokenBucketsReachPromptsOfMillions) {
  EXPECT_GE(FirstTokenBuckets().back(), 2560);
  const auto metrics = Metrics::Create();
  metrics->Histogram("palimpsest_first_token_seconds", "t", FirstTokenBuckets()).Observe(2000);
  const std::string text = metrics->Text();
  EXPECT_THAT(text, HasSubstr("palimpsest_first_token_seconds_bucket{le=\"1280\"} 0"));
  EXPECT_THAT(text, HasSubstr("palimpsest_first_token_seconds_bucket{le=\"2560\"} 1"));
}

TEST(Metrics, GaugesThatMirrorAStateAreSetBeforeTheyAreRead) {
  const auto metrics = Metrics::Create();
  MetricGauge& gauge = metrics->Gauge("palimpsest_waiting", "w");
  int waiting = 4;
  metrics->OnCollect([&] { gauge.Set(waiting); });
  EXPECT_THAT(metrics->Text(), HasSubstr("palimpsest_waiting 4"));
  waiting = 0;
  EXPECT_THAT(metrics->Text(), HasSubstr("palimpsest_waiting 0"));
}

TEST(Metrics, HandlesAreForAnyThread) {
  const auto metrics = Metrics::Create();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        metrics->Counter("palimpsest_y_total", "y", {{"n", std::to_string(i % 3)}}).Add();
        if (i % 100 == 0) metrics->Text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics->Text(), HasSubstr("palimpsest_y_total{n=\"1\"} 668"));
}

}  // namespace
}  // namespace palimpsest
