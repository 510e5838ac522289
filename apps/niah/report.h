// What the runs of a needle test come to: cells, and their sums over depths. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "apps/niah/score.h"

namespace palimpsest {

// One answer to one sample.
struct NiahTrial {
  std::string task;
  int64_t length = 0;  // tokens asked for, with question and answer
  double depth_percent = 0;
  std::string policy, recall = "none";
  bool question_visible = false;
  int64_t turn = 1;

  double score = 0;  // 0 to 1
  int64_t prompt_tokens = 0, output_tokens = 0;
  double resident_tokens = 0;  // when decoding began: mean over layers and KV heads
  bool kept_all = false;       // no token of the prompt was dropped: nothing was compressed
  bool as_full = false;        // full gave the same words, to this question and those before it
  bool degraded = false;       // the receipt names something that was not done as asked
  int64_t resident_bytes = 0, peak_bytes = 0;
  int64_t recalled_host = 0, recalled_ssd = 0;  // slices of recall that came from there
  double needle_seen = -1;  // share of the needle that the answer's first token could see; -1: not known
  double first_token_seconds = 0;
};

// Trials that agree in all but the seed.
struct NiahCell {
  NiahTrial of;  // task, length, depth, policy, recall, question, turn
  int64_t n = 0;
  int64_t kept_all = 0, as_full = 0, degraded = 0;                                       // of n
  double correct = 0;                                                                    // mean score
  double prompt_tokens = 0, output_tokens = 0, resident_tokens = 0, resident_bytes = 0;  // means
  double recalled_host = 0, recalled_ssd = 0, needle_seen = -1;                          // means
  int64_t peak_bytes = 0;                                                                // the most
  double first_token_seconds = 0;                                                        // median
};

// Cells that agree in all but the depth; of conversations also those that agree in all but depth and turn.
struct NiahSummary {
  NiahCell all;  // of all trials; its depth says nothing
  bool all_turns = false;
  Interval interval;
  double worst_correct = 0, worst_depth_percent = 0;  // the worst cell, the first if there are several
};

struct NiahReport {
  std::vector<NiahCell> cells;  // both in the order in which they first ran
  std::vector<NiahSummary> summary;
};
NiahReport ReportOf(std::span<const NiahTrial> trials);

// What made the report.
struct NiahRun {
  std::string model, numerics;
  int64_t first_seed = 0, seeds = 0, turns = 1, max_tokens = 0;
};
// Field names are a contract.
std::string ReportJson(const NiahReport& report, const NiahRun& run);
// A table for people.
std::string ReportText(const NiahReport& report, const NiahRun& run);

}  // namespace palimpsest
