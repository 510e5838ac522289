// Samples and answers as files of JSON lines, in RULER's form: what another engine reads and writes.
//
// A sample  : {"index", "input", "outputs", "length"} as RULER has them ("input" ends with the question,
//             "length" counts prompt and answer in this model's tokens), then "answer_prefix", "task",
//             "tokens", "depth", "seed", "turn", "question", "max_tokens".
// An answer : a sample's line with "pred", the answer's text; of the rest "outputs" is needed, and "task" or
//             the name of the file.
// Errors    : InvalidArgument that names the file and the line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/score.h"
#include "apps/niah/task.h"

namespace palimpsest {

// The question of turn `turn` (from 0) as a line, with its newline. `length`: tokens of the sample.
std::string NiahSampleLine(int64_t index, const NiahTask& task, const NiahRequest& request,
                           const NiahSample& sample, size_t turn, int64_t length);

struct NiahScoreRow {
  std::string task;
  int64_t tokens = 0;  // that were asked for; 0: the lines do not say
  int64_t n = 0, empty = 0;
  double correct = 0;
  Interval interval;
};
// Of all lines of a file, by task and length. `task`: of lines that do not say; empty: the file's name says.
absl::StatusOr<std::vector<NiahScoreRow>> ScoreNiahAnswers(std::string_view text, const std::string& file,
                                                           const std::string& task);
std::string NiahScoresJson(const std::vector<NiahScoreRow>& rows);
std::string NiahScoresText(const std::vector<NiahScoreRow>& rows);

}  // namespace palimpsest
