// Needle reports: cells, sums and what they say about chance.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "apps/niah/report.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(WilsonTest, KnownValues) {
  // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
  const auto expect = [](double right, int64_t n, double low, double high) {
    const Interval interval = WilsonInterval(right / static_cast<double>(n), n);
    EXPECT_NEAR(interval.low, low, 5e-5) << right << " of " << n;
    EXPECT_NEAR(interval.high, high, 5e-5) << right << " of " << n;
  };
  expect(81, 263, 0.2553, 0.3662);
  expect(15, 148, 0.0624, 0.1605);
  expect(0, 20, 0.0000, 0.1611);
  expect(1, 29, 0.0061, 0.1718);
  expect(20, 20, 0.8389, 1.0000);
}

TEST(WilsonTest, NoTrialSaysNothing) {
  EXPECT_EQ(WilsonInterval(0, 0).low, 0);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

TEST(MedianTest, MiddleOrMeanOfTheMiddleTwo) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(Median({}), 0);
}

NiahTrial Trial(const std::string& policy, double depth, double score) {
  const bool full = policy == "full";
  return {.task = "single_noise",
          .length = 1024,
          .depth_percent = depth,
          .policy = policy,
          .score = score,
          .prompt_tokens = 1000,
          .output_tokens = 8,
          .resident_tokens = full ? 1000.0 : 250.0,
          .kept_all = full,
          .resident_bytes = full ? 4000 : 1000,
          .peak_bytes = 5000 + static_cast<int64_t>(depth),
          .first_token_seconds = score + 0.5};
}

std::vector<NiahTrial> Trials() {
  return {Trial("full", 0, 1),  Trial("random", 0, 0),  Trial("full", 0, 1),  Trial("random", 0, 1),
          Trial("full", 50, 1), Trial("random", 50, 0), Trial("full", 50, 1), Trial("random", 50, 0)};
}

TEST(NiahReportTest, CellsAreMeansOverSeeds) {
  const NiahReport report = ReportOf(Trials());
  ASSERT_EQ(report.cells.size(), 4u);
  const NiahCell& random = report.cells[1];
  EXPECT_EQ(random.of.policy, "random");
  EXPECT_EQ(random.n, 2);
  EXPECT_EQ(random.correct, 0.5);
  EXPECT_EQ(random.resident_tokens, 250);
  EXPECT_EQ(random.first_token_seconds, 1.0);
  EXPECT_EQ(random.kept_all, 0);
  EXPECT_EQ(report.cells[2].peak_bytes, 5050);
}

TEST(NiahReportTest, SummaryHasTheWorstDepthAndAnInterval) {
  const NiahReport report = ReportOf(Trials());
  ASSERT_EQ(report.summary.size(), 2u);
  const NiahSummary& full = report.summary[0];
  EXPECT_EQ(full.all.correct, 1);
  EXPECT_EQ(full.worst_correct, 1);
  EXPECT_EQ(full.worst_depth_percent, 0);
  const NiahSummary& random = report.summary[1];
  EXPECT_EQ(random.all.n, 4);
  EXPECT_EQ(random.all.correct, 0.25);
  EXPECT_EQ(random.worst_correct, 0);
  EXPECT_EQ(random.worst_depth_percent, 50);
  EXPECT_NEAR(random.interval.low, 0.0456, 5e-5);
  EXPECT_NEAR(random.interval.high, 0.6994, 5e-5);
}

TEST(NiahReportTest, TurnsAreRowsAndComeTogetherInOne) {
  std::vector<NiahTrial> trials = Trials();
  for (NiahTrial trial : Trials()) {
    trial.turn = 2;
    trial.score = 0;
    trials.push_back(trial);
  }
  const NiahReport report = ReportOf(trials);
  EXPECT_EQ(report.cells.size(), 8u);
  ASSERT_EQ(report.summary.size(), 6u);
  const NiahSummary& first = report.summary[0];
  const NiahSummary& second = report.summary[1];
  const NiahSummary& both = report.summary[2];
  EXPECT_EQ(first.all.n, 4);
  EXPECT_EQ(first.all.correct, 1);
  EXPECT_EQ(second.all.of.turn, 2);
  EXPECT_EQ(second.all.correct, 0);
  EXPECT_TRUE(both.all_turns);
  EXPECT_EQ(both.all.n, 8);
  EXPECT_EQ(both.all.correct, 0.5);
  EXPECT_EQ(both.worst_correct, 0);
  const json::array rows =
      json::parse(ReportJson(report, {.model = "m"})).as_object().at("summary").as_array();
  EXPECT_EQ(rows.at(1).as_object().at("turn"), 2);
  EXPECT_TRUE(rows.at(2).as_object().at("turn").is_null());
}

TEST(NiahReportTest, HiddenAndVisibleAreRowsOfTheirOwn) {
  std::vector<NiahTrial> trials = Trials();
  trials.push_back(Trial("full", 0, 0));
  trials.back().question_visible = true;
  const NiahReport report = ReportOf(trials);
  ASSERT_EQ(report.summary.size(), 3u);
  EXPECT_EQ(report.summary[0].all.correct, 1);
  EXPECT_EQ(report.summary[2].all.correct, 0);
}

TEST(NiahReportTest, JsonHasTheFieldsOfTheContract) {
  const json::object report =
      json::parse(ReportJson(ReportOf(Trials()), {.model = "m", .seeds = 2})).as_object();
  const json::object& cell = report.at("cells").as_array().at(0).as_object();
  for (const char* field : {"task",
                            "length",
                            "depth",
                            "policy",
                            "recall",
                            "question",
                            "turn",
                            "n",
                            "correct",
                            "device_bytes_peak",
                            "first_token_seconds",
                            "resident_bytes",
                            "resident_tokens",
                            "prompt_tokens",
                            "output_tokens",
                            "kept_all",
                            "as_full",
                            "degraded",
                            "recalled_slices",
                            "needle_seen"}) {
    EXPECT_TRUE(cell.contains(field)) << field;
  }
  EXPECT_EQ(cell.at("question"), "hidden");
  EXPECT_EQ(report.at("summary").as_array().size(), 2u);
  const json::object& row = report.at("summary").as_array().at(1).as_object();
  EXPECT_EQ(row.at("worst").as_object().at("depth").to_number<double>(), 50);
  EXPECT_EQ(row.at("interval").as_array().size(), 2u);
  const json::object& run = report.at("run").as_object();
  EXPECT_EQ(run.at("model"), "m");
  EXPECT_TRUE(run.at("reading").is_null()) << "no trial tells of it";
  std::vector<NiahTrial> trials = Trials();
  for (NiahTrial& trial : trials) {
    trial.read_tokens = 10;
    trial.read_computed_tokens = 7;
  }
  trials[3].read_peak_bytes = 9000;
  const json::value told = json::parse(ReportJson(ReportOf(trials), {.server = "http://s"}));
  EXPECT_EQ(told.at("run").at("reading"),
            json::parse(R"({"tokens": 80, "computed": 56, "device_bytes_peak": 9000})"));
  EXPECT_THAT(ReportText(ReportOf(trials), {}),
              HasSubstr("asked: 80 tokens, 56 of them computed, 8.79 KiB on"));
  EXPECT_EQ(told.at("run").at("server"), "http://s");
}

TEST(NiahReportTest, AsFullIsNotKnownWhereFullDidNotRun) {
  std::vector<NiahTrial> trials = Trials();
  for (NiahTrial& trial : trials) {
    trial.compared = trial.policy == "full" || trial.depth_percent > 0;
    trial.as_full = trial.compared;
  }
  const NiahReport report = ReportOf(trials);
  const json::value cells = json::parse(ReportJson(report, {})).at("cells");
  EXPECT_EQ(cells.at(0).at("as_full"), 2);
  EXPECT_TRUE(cells.at(1).at("as_full").is_null());
  EXPECT_EQ(cells.at(3).at("as_full"), 2);
  EXPECT_THAT(ReportText(report, {}), Not(HasSubstr("%        -")));
  for (NiahTrial& trial : trials) trial.compared = trial.as_full = false;
  EXPECT_THAT(ReportText(ReportOf(trials), {}), HasSubstr("%        -"));
}

TEST(NiahReportTest, PolicyThatKeptAllIsSeen) {
  std::vector<NiahTrial> trials = Trials();
  EXPECT_THAT(ReportText(ReportOf(trials), {}), Not(HasSubstr("kept all")));
  trials[1].kept_all = true;
  EXPECT_THAT(ReportText(ReportOf(trials), {}), HasSubstr("kept all in 1 of 4"));
  for (NiahTrial& trial : trials) trial.kept_all = true;
  const std::string text = ReportText(ReportOf(trials), {});
  EXPECT_THAT(text, HasSubstr("kept all\n"));
  EXPECT_THAT(text, HasSubstr("100.0"));
}

}  // namespace
}  // namespace palimpsest
