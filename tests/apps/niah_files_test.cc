// What goes to and comes from other programs: RULER's JSON lines, two reports against each other, CSV, the
// page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>

#include "apps/niah/compare.h"
#include "apps/niah/report.h"
#include "apps/niah/ruler_files.h"
#include "apps/niah_html.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

absl::StatusOr<int64_t> Count(const NiahSample& sample) {
  return static_cast<int64_t>(sample.context.size() / 4);
}

// --- samples and answers

TEST(RulerFilesTest, SampleHasRulersFieldsAndItsAnswerScores) {
  const auto task = *MakeNiahTask("niah_single_1", {});
  const NiahRequest request{.seed = 9, .tokens = 800, .depth_percent = 50, .turns = 2};
  const NiahSample sample = *task->Generate(request, Count);
  std::string lines;
  for (size_t turn = 0; turn < 2; ++turn) {
    const std::string line =
        NiahSampleLine(static_cast<int64_t>(turn), *task, request, sample, turn, *Count(sample));
    json::object object = json::parse(line).as_object();
    EXPECT_EQ(object.at("index"), static_cast<int64_t>(turn));
    EXPECT_EQ(object.at("input").as_string(), sample.context + "\n" + sample.turns[turn].question);
    EXPECT_EQ(object.at("outputs").as_array().at(0).as_string(), sample.turns[turn].references[0]);
    EXPECT_LE(object.at("length").to_number<int64_t>(), 800);
    EXPECT_EQ(object.at("max_tokens"), 128);
    EXPECT_EQ(object.at("turn").to_number<size_t>(), turn + 1);
    object["pred"] = turn == 0 ? sample.turns[0].references[0] + "." : "";
    lines += json::serialize(object) + "\n";
  }
  const auto rows = ScoreNiahAnswers(lines, "answers.jsonl", "");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_THAT(*rows, SizeIs(1));
  EXPECT_EQ((*rows)[0].task, "niah_single_1");
  EXPECT_EQ((*rows)[0].tokens, 800);
  EXPECT_EQ((*rows)[0].n, 2);
  EXPECT_EQ((*rows)[0].empty, 1);
  EXPECT_EQ((*rows)[0].correct, 0.5);
}

TEST(RulerFilesTest, AnswersOfRulerNameTheirTaskByTheFile) {
  const std::string lines =
      R"({"index": 0, "pred": "it is Lyon, or Paris", "input": "...", "outputs": ["Paris", "the capital"]})"
      "\n\n"
      R"({"index": 1, "pred": ["unknown"], "outputs": "Rome"})";
  const auto rows = ScoreNiahAnswers(lines, "some/folder/qa_1.jsonl", "");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ((*rows)[0].task, "qa_1");
  EXPECT_EQ((*rows)[0].correct, 0.5) << "any of the references";
  EXPECT_EQ(ScoreNiahAnswers(lines, "qa_1.jsonl", "niah_multikey_1").value()[0].correct, 0.25)
      << "all of them";
  const json::object scores = json::parse(NiahScoresJson(*rows)).as_object();
  EXPECT_TRUE(scores.at("scores").as_array().at(0).as_object().at("length").is_null());
  EXPECT_THAT(NiahScoresText(*rows), HasSubstr("50.0"));
}

TEST(RulerFilesTest, WhatIsWrongIsNamedByFileAndLine) {
  const auto error = [](const std::string& text, const std::string& task = "vt") {
    return Message(ScoreNiahAnswers(text, "a.jsonl", task).status());
  };
  const std::string good = R"({"pred": "x", "outputs": ["x"]})";
  EXPECT_THAT(error(good + "\nnot json\n"), AllOf(HasSubstr("a.jsonl"), HasSubstr("line 2")));
  EXPECT_THAT(error(R"({"outputs": ["x"]})"), HasSubstr("\"pred\""));
  EXPECT_THAT(error(R"({"pred": "x", "outputs": []})"), HasSubstr("\"outputs\""));
  EXPECT_THAT(error(good, ""), AllOf(HasSubstr("task 'a'"), HasSubstr("--task")));
  EXPECT_THAT(error(""), HasSubstr("no answers"));
}

// --- comparison

NiahReportFile Report(const std::string& name, double correct, const std::string& policy = "full",
                      int64_t length = 1024, int64_t n = 100, double depth = 0, int64_t turns = 1) {
  std::vector<NiahTrial> trials;
  for (int64_t i = 0; i < n; ++i) {
    trials.push_back({.task = "vt",
                      .length = length,
                      .depth_percent = depth,
                      .policy = policy,
                      .question_visible = true,
                      .score = static_cast<double>(i) < correct * static_cast<double>(n) ? 1.0 : 0.0});
  }
  return {name, ReportJson(ReportOf(trials), {.model = "model of " + name, .turns = turns})};
}

TEST(NiahCompareTest, DifferencesBeyondTheirIntervalAreToldAndOthersAreNot) {
  const auto far = CompareNiah(Report("a", 0.9), Report("b", 0.5));
  ASSERT_TRUE(far.ok()) << far.status();
  EXPECT_TRUE(far->rows[0].differs());
  EXPECT_THAT(NiahComparisonText(*far, false),
              AllOf(HasSubstr("-40.0"), HasSubstr("1 of 1 rows differ"), HasSubstr("model of b")));
  const auto near = CompareNiah(Report("a", 0.9), Report("b", 0.85));
  EXPECT_FALSE(near->rows[0].differs());
  EXPECT_THAT(NiahComparisonText(*near, false), AllOf(HasSubstr("0 of 1 rows"), Not(HasSubstr("-5.0"))));
  EXPECT_THAT(NiahComparisonText(*near, true), HasSubstr("-5.0"));
  const json::object object = json::parse(NiahComparisonJson(*far)).as_object();
  EXPECT_EQ(object.at("rows").as_array().at(0).as_object().at("differs"), true);
}

TEST(NiahCompareTest, EndpointIsHeldAgainstFull) {
  const auto comparison = CompareNiah(Report("a", 1), Report("b", 1, "endpoint"));
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_THAT(comparison->rows, SizeIs(1));
}

TEST(NiahCompareTest, SamplesThatDifferAreTold) {
  const auto other = CompareNiah(Report("a", 0.9), Report("b", 0.5, "full", 1024, 100, 50, 2));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_THAT(NiahComparisonText(*other, false),
              HasSubstr("\nthe samples differ, and scores may for that; depths: 0 in A, 50 in B; "
                        "turns: 1 in A, 2 in B\n"));
  const json::value told = json::parse(NiahComparisonJson(*other));
  EXPECT_EQ(told.at("samples_differ").as_array().size(), 2u);
  const auto same = CompareNiah(Report("a", 0.9), Report("b", 0.5));
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_THAT(same->samples_differ, SizeIs(0));
  EXPECT_THAT(NiahComparisonText(*same, false), Not(HasSubstr("samples")));
}

TEST(NiahCompareTest, NothingInCommonAndOtherFilesAreRefused) {
  EXPECT_THAT(Message(CompareNiah(Report("a", 1), Report("b", 1, "full", 2048)).status()),
              HasSubstr("no row in common"));
  for (const char* const text : {"", "[]", "{}", R"({"run": {"model": "m"}, "summary": [{}]})"}) {
    EXPECT_THAT(Message(CompareNiah({"bad.json", text}, Report("b", 1)).status()),
                AllOf(HasSubstr("bad.json"), HasSubstr("niah --json")));
  }
}

// --- CSV and text

std::vector<NiahTrial> Grid() {
  std::vector<NiahTrial> trials;
  for (const int64_t length : {1024, 2048}) {
    for (const double depth : {0.0, 50.0}) {
      for (const char* policy : {"full", "snapkv:budget=25%,window=16"}) {
        const bool right = std::string(policy) == "full" || depth > 0;
        trials.push_back({.task = "vt",
                          .length = length,
                          .depth_percent = depth,
                          .policy = policy,
                          .score = right ? 1.0 : 0.0,
                          .output_tokens = 5,
                          .decode_seconds = 0.5});
      }
    }
  }
  return trials;
}

TEST(NiahCsvTest, ALineForEachCellWithQuotesWhereTheyAreNeeded) {
  const std::string csv = ReportCsv(ReportOf(Grid()));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 9);
  EXPECT_THAT(csv, StartsWith("task,length,policy,"));
  EXPECT_THAT(csv, HasSubstr("\"snapkv:budget=25%,window=16\""));
  EXPECT_THAT(csv, HasSubstr("interval.0"));
  EXPECT_THAT(csv, HasSubstr("receipts.seconds.decode"));
  const size_t columns = static_cast<size_t>(std::count(csv.begin(), csv.begin() + csv.find("\r\n"), ','));
  const std::string first = csv.substr(csv.find("\r\n") + 2);
  EXPECT_EQ(std::count(first.begin(), first.begin() + static_cast<long>(first.find("\r\n")), ','), columns);
}

TEST(NiahTextTest, MapHasDepthsDownAndLengthsAcross) {
  const std::string text = ReportText(ReportOf(Grid()), {});
  EXPECT_THAT(text, HasSubstr("vt, full, question hidden: % correct by depth and length\n"));
  EXPECT_THAT(text, HasSubstr("    0 %      0         0   "));
  EXPECT_THAT(text, HasSubstr("   50 %    100 ██    100 ██"));
  std::vector<NiahTrial> one = Grid();
  one.resize(4);
  EXPECT_THAT(ReportText(ReportOf(one), {}), Not(HasSubstr("by depth and length"))) << "of one length";
}

TEST(NiahTextTest, HolesAndTasksWithoutDepthsHaveDashes) {
  std::vector<NiahTrial> trials = Grid();
  for (NiahTrial& trial : trials) trial.failed = "refused";
  const NiahReport failed = ReportOf(trials);
  EXPECT_THAT(ReportText(failed, {}), HasSubstr("no answer"));
  const json::object cell =
      json::parse(ReportJson(failed, {})).as_object().at("cells").as_array().at(0).as_object();
  EXPECT_TRUE(cell.at("correct").is_null());
  EXPECT_EQ(cell.at("failed"), 1);
  for (NiahTrial& trial : trials) {
    trial.failed.clear();
    trial.depth_percent = -1;
    trial.measured = false;
  }
  const json::object without =
      json::parse(ReportJson(ReportOf(trials), {})).as_object().at("cells").as_array().at(0).as_object();
  EXPECT_TRUE(without.at("depth").is_null());
  EXPECT_TRUE(without.at("resident_bytes").is_null());
}

// --- page

json::object DataOf(const std::string& page) {
  const std::string_view begin = R"(<script type="application/json" id="data">)";
  const size_t from = page.find(begin) + begin.size();
  return json::parse(page.substr(from, page.find("</script>", from) - from)).as_object();
}

TEST(NiahHtmlTest, ReportComesBackAsItWas) {
  const std::string report = ReportJson(ReportOf(Grid()), {.model = "m", .command = "palimpsest niah"});
  EXPECT_EQ(json::value(DataOf(NiahHtml(report))), json::parse(report));
}

TEST(NiahHtmlTest, NothingThatComesFromOutsideCanEndTheData) {
  const std::string evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>{{script}}";
  const std::string page = NiahHtml(ReportJson(ReportOf(Grid()), {.model = evil, .command = evil}));
  const std::string plain = NiahHtml(ReportJson(ReportOf(Grid()), {}));
  for (const std::string markup : {"<script", "</script", "<img", "<!--"}) {
    const auto times = [&](const std::string& text) {
      size_t found = 0;
      for (size_t at = 0; (at = text.find(markup, at)) != std::string::npos; ++at) ++found;
      return found;
    };
    EXPECT_EQ(times(page), times(plain)) << markup;
  }
  EXPECT_EQ(DataOf(page).at("run").as_object().at("command").as_string(), evil);
}

TEST(NiahHtmlTest, PageAsksNoNetworkForAnything) {
  const std::string page = NiahHtml(ReportJson(ReportOf(Grid()), {}));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  const std::string name_of_svg = "http://www.w3.org/2000/svg";  // a name, not an address that is asked
  std::string rest = page;
  for (size_t at; (at = rest.find(name_of_svg)) != std::string::npos;) rest.erase(at, name_of_svg.size());
  for (const char* const loads : {"http:", "https:", "src=", "@import", "url(", "fetch(", "innerHTML"}) {
    EXPECT_THAT(rest, Not(HasSubstr(loads)));
  }
}

}  // namespace
}  // namespace palimpsest
