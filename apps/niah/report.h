// What the runs of a needle test come to: cells, and their sums over depths. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/score.h"
#include "apps/niah/trial.h"

namespace palimpsest {

// Trials that agree in all but the seed.
struct NiahCell {
  NiahTrial of;                        // task, length, depth, policy, recall, question, turn
  int64_t n = 0, failed = 0;           // with an answer, and without
  int64_t kept_all = 0, degraded = 0;  // of n
  int64_t compared = 0;                // of n, with full
  int64_t as_full = 0;                 // of compared
  double correct = 0;                  // mean score
  double prompt_tokens = 0, output_tokens = 0, resident_tokens = 0, resident_bytes = 0;  // means
  double recalled_host = 0, recalled_ssd = 0, needle_seen = -1;                          // means
  int64_t peak_bytes = 0;                                                                // the most
  double first_token_seconds = 0, decode_seconds = 0;                                    // medians
  double decode_rate = 0;  // median of tokens after the first, a second
  NiahTrial receipts;      // seconds, bytes and tokens: sums
};

// Cells that agree in all but the depth; of conversations also those that agree in all but depth and turn.
struct NiahSummary {
  NiahCell all;  // of all trials; its depth says nothing
  bool all_turns = false;
  Interval interval;
  double worst_correct = 0, worst_depth_percent = 0;  // the worst cell, the first if there are several
};

struct NiahReport {
  int64_t read_tokens = 0, read_computed_tokens = 0;  // of all texts; 0: it is not told
  int64_t read_peak_bytes = 0;                        // the most of any text
  std::vector<NiahCell> cells;                        // both in the order in which they first ran
  std::vector<NiahSummary> summary;
};
NiahReport ReportOf(std::span<const NiahTrial> trials);

// What made the report.
struct NiahRun {
  std::string model, numerics;
  int64_t first_seed = 0, seeds = 0, turns = 1;
  int64_t max_tokens = 0;  // 0: as each task says
  std::string command, version, started, endpoint, server;
};
// Field names are a contract.
std::string ReportJson(const NiahReport& report, const NiahRun& run);
// A line for each cell, with its interval; the first has the names.
std::string ReportCsv(const NiahReport& report);
// A table for people, and a map of lengths and depths where there are several of both.
std::string ReportText(const NiahReport& report, const NiahRun& run);

std::string_view QuestionName(const NiahTrial& trial);
// What recall brings back belongs to what the policy keeps: "snapkv:budget=25% + slices:budget=256".
std::string NiahHow(const NiahTrial& of);

}  // namespace palimpsest
