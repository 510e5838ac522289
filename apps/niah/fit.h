// What all tasks do: needles into a haystack, as much haystack as fits, numbers of their own. Pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/task.h"

namespace palimpsest {

// Random numbers of what a sample asks for. Cells share nothing of it: a needle that is hard counts once.
uint64_t NiahStream(std::string_view task, const NiahRequest& request);
// Of all else: samples whose requests differ in depth alone have it in common, so that their texts are the
// same up to the first place where something is asked for, and what was read of one is found for the others.
uint64_t NiahTextStream(std::string_view task, const NiahRequest& request);

struct Insertion {
  std::string text;
  double depth_percent = 0;
};
// The pieces with the insertions between them, each at the border nearest to its depth by bytes; insertions
// of one border in their order.
struct Woven {
  std::vector<std::string> pieces;
  std::vector<size_t> place;              // of each insertion, among `pieces`
  std::vector<double> stands_at_percent;  // of each insertion, of the bytes of the pieces without any
};
Woven Weave(const std::vector<std::string>& pieces, const std::vector<Insertion>& insertions);

// A sample of `units` units of its haystack, and of `filler` short sentences that mean nothing behind it.
using SampleOfSize = std::function<NiahSample(int64_t units, int64_t filler)>;
struct Haystacks {
  std::optional<int64_t> units;  // there are so many; none: without end
  std::string name;              // of the file, for errors
  bool fills = false;            // units are large: where they leave room, filler takes it
};
// The one with the most units that fits the request's tokens. Counts are taken to grow with units.
absl::StatusOr<NiahSample> LongestSample(const NiahRequest& request, const CountSampleTokens& count,
                                         const Haystacks& haystack, const SampleOfSize& sample_of);

// The five short sentences of the benchmark's noise over and over, `count` of them.
std::string NoiseSentences(int64_t count);

int64_t Times(std::string_view part, std::string_view text);
inline bool IsOnce(std::string_view part, std::string_view text) { return Times(part, text) == 1; }

}  // namespace palimpsest
