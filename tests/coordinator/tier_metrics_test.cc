#include "coordinator/tier_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace palimpsest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

proto::WorkerStatus Status(const std::string& tier, int64_t used, int64_t hits) {
  proto::WorkerStatus status;
  proto::TierStatus& one = *status.add_tiers();
  one.set_name(tier);
  one.set_used_bytes(used);
  one.set_hits(hits);
  return status;
}

class TierMetricsTest : public ::testing::Test {
 protected:
  void Set(std::vector<std::pair<std::string, proto::WorkerStatus>> workers) {
    std::vector<TierMetrics::Worker> told;
    for (const auto& [process, status] : workers) told.push_back({process, &status});
    tiers_.Set(told);
  }
  void ExpectText(const std::string& line) { EXPECT_THAT(metrics_->Text(), HasSubstr(line + "\n")); }

  const std::unique_ptr<Metrics> metrics_ = Metrics::Create();
  TierMetrics tiers_{metrics_.get()};
};

TEST_F(TierMetricsTest, LevelsAreSumsOfThoseThatAreAlive) {
  Set({{"a", Status("host", 10, 0)}, {"b", Status("host", 5, 0)}});
  ExpectText(R"(palimpsest_tier_used_bytes{tier="host"} 15)");
  ExpectText(R"(palimpsest_tier_used_bytes{tier="ssd"} 0)");
  Set({{"b", Status("host", 6, 0)}});
  ExpectText(R"(palimpsest_tier_used_bytes{tier="host"} 6)");
}

TEST_F(TierMetricsTest, CountsGoOnWhoeverJoinsAgain) {
  const std::string line = R"(palimpsest_tier_hits_total{tier="ssd"} )";
  Set({{"a", Status("ssd", 0, 4)}, {"b", Status("ssd", 0, 2)}});
  ExpectText(line + "6");
  Set({{"a", Status("ssd", 0, 5)}, {"b", Status("ssd", 0, 2)}});
  ExpectText(line + "7");
  Set({{"b", Status("ssd", 0, 2)}});  // a is away for a moment, and comes back as it was
  Set({{"a", Status("ssd", 0, 5)}, {"b", Status("ssd", 0, 2)}});
  ExpectText(line + "7");
  Set({{"c", Status("ssd", 0, 1)}});  // a new process counts from 0
  ExpectText(line + "8");
}

TEST_F(TierMetricsTest, DropsHaveTheirReasons) {
  proto::WorkerStatus status = Status("ssd", 0, 0);
  status.set_dropped_full(2);
  status.set_dropped_refused(3);
  status.set_ssd_off(true);
  Set({{"a", status}});
  ExpectText(R"(palimpsest_tier_dropped_total{reason="full",tier="ssd"} 2)");
  ExpectText(R"(palimpsest_tier_dropped_total{reason="refused",tier="ssd"} 3)");
  ExpectText(R"(palimpsest_tier_off{tier="ssd"} 1)");
}

TEST_F(TierMetricsTest, NoLabelIsAWorkersOwnWord) {
  Set({{"a", Status("evil\"} 1", 7, 9)}});
  EXPECT_THAT(metrics_->Text(), Not(HasSubstr("evil")));
}

TEST(TierMetricsWithoutTest, NothingIsCountedWithoutMetrics) {
  TierMetrics tiers(nullptr);
  const proto::WorkerStatus status = Status("host", 1, 1);
  const TierMetrics::Worker worker{"a", &status};
  tiers.Set({&worker, 1});
}

}  // namespace
}  // namespace palimpsest
