// Two reports against each other: which differences are more than chance.
//
// Rows that agree in task, length, policy, recall, question and turn are held against each other; an
// endpoint's answers count as those of `full`. A difference is one if its 95 % interval leaves out 0: of
// twenty rows that are the same, one looks different by chance. Samples that stand at other depths, or are
// asked in other ways, differ for that: it is said. Errors: InvalidArgument: not a report of `niah --json`,
// or no row in common; names the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/score.h"

namespace palimpsest {

struct NiahReportFile {
  std::string name, text;
};

struct NiahComparison {
  struct Row {
    std::string task, how, question, turn;
    int64_t length = 0;
    int64_t first_n = 0, second_n = 0;
    double first = 0, second = 0;  // shares of right answers
    Interval difference;           // of second - first
    bool differs() const { return difference.low > 0 || difference.high < 0; }
  };
  std::string first_name, second_name, first_model, second_model;
  // Of their samples, in words: "depths: 0 in A, 50 in B".
  std::vector<std::string> samples_differ;
  std::vector<Row> rows;  // that both have, in the order of the first
  std::vector<Row> only_first, only_second;
};
absl::StatusOr<NiahComparison> CompareNiah(const NiahReportFile& first, const NiahReportFile& second);
std::string NiahComparisonJson(const NiahComparison& comparison);
// `all`: also the rows that do not differ.
std::string NiahComparisonText(const NiahComparison& comparison, bool all);

}  // namespace palimpsest
