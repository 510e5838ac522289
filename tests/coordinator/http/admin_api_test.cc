#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "coordinator/http/api.h"
#include "tests/coordinator/http/sent_response.h"
#include "tests/coordinator/serving_fixture.h"

namespace palimpsest::http {
namespace {

using ::testing::HasSubstr;

class AdminApi : public ::testing::Test {
 protected:
  SentResponse Get(const std::string& path) {
    SentResponse sent;
    Request request;
    request.path = path;
    const Router::Match match = router.Find("GET", path);
    EXPECT_NE(match.route, nullptr) << path;
    if (match.route != nullptr) match.route->handler(request, sent);
    return sent;
  }

  testing::Serving serving;
  std::unique_ptr<Metrics> metrics = Metrics::Create();
  Router router = MakeAdminRouter({serving.coordinator.get(), metrics.get(), {}});
};

TEST_F(AdminApi, ReadyFollowsTheWorkers) {
  ASSERT_TRUE(serving.coordinator->Ready().ok());
  EXPECT_EQ(Get("/ready").status, 200);
  serving.cluster.RemoveAll();
  const SentResponse sent = Get("/ready");
  EXPECT_EQ(sent.status, 503);
  EXPECT_EQ(sent.more.at("retry-after"), "1");
  EXPECT_THAT(sent.body, HasSubstr("not_ready"));
  EXPECT_EQ(Get("/health").status, 200) << "alive all the same";
}

TEST_F(AdminApi, DrainingIsNotReady) {
  serving.coordinator->Drain(std::chrono::seconds(10));
  EXPECT_EQ(Get("/ready").status, 503);
  EXPECT_THAT(Get("/status").body, HasSubstr(R"("draining": true)"));
}

TEST_F(AdminApi, StatusTellsWorkersAndQueue) {
  const SentResponse sent = Get("/status");
  EXPECT_EQ(sent.status, 200);
  const boost::json::value status = boost::json::parse(sent.body);
  EXPECT_TRUE(status.at("ready").as_bool());
  EXPECT_EQ(status.at("requests").at("running").as_int64(), 0);
  EXPECT_EQ(status.at("model").at("name").as_string(), serving.coordinator->model().name);
  const boost::json::array& workers = status.at("workers").as_array();
  ASSERT_EQ(workers.size(), serving.cluster.links().size());
  EXPECT_GT(workers.at(0).at("incarnation").to_number<int64_t>(), 0);
  EXPECT_GE(workers.at(0).at("seconds_since_beat").to_number<double>(), 0);
}

TEST_F(AdminApi, MetricsAreText) {
  metrics->Counter("palimpsest_x_total", "x").Add();
  const SentResponse sent = Get("/metrics");
  EXPECT_THAT(sent.type, HasSubstr("version=0.0.4"));
  EXPECT_THAT(sent.body, HasSubstr("palimpsest_x_total 1"));
}

}  // namespace
}  // namespace palimpsest::http
