#include "tests/testing/induction_text.h"

#include <algorithm>

#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest::testing::induction {
namespace {

constexpr int64_t kQuestionFillers = 12;

int32_t Below(RngSequence& rng, int32_t bound) {
  return static_cast<int32_t>(rng.Below(static_cast<uint64_t>(bound)));
}

}  // namespace

std::vector<Needle> SpreadNeedles(int64_t tokens, int64_t count, uint64_t seed) {
  PALIMPSEST_CHECK(count < kKeys && tokens >= count * kNeedleTokens + kQuietTail, "{} needles in {} tokens",
                   count, tokens);
  RngSequence rng{Rng(seed, 1)};
  std::vector<Needle> needles;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t last = tokens - kQuietTail - kNeedleTokens;
    Needle needle{.key = Key(static_cast<int32_t>((i * 37 + static_cast<int64_t>(seed)) % (kKeys - 1))),
                  .values = {},
                  .first = count == 1 ? last / 2 : last * i / (count - 1)};
    for (int32_t& value : needle.values) value = Value(Below(rng, kValues));
    needles.push_back(needle);
  }
  return needles;
}

std::vector<int32_t> Document(int64_t tokens, std::span<const Needle> needles, uint64_t seed) {
  RngSequence rng{Rng(seed, 2)};
  std::vector<int32_t> document;
  for (int64_t i = 0; i < tokens; ++i) document.push_back(Filler(Below(rng, kFillers)));
  for (const Needle& needle : needles) {
    PALIMPSEST_CHECK(needle.first >= 0 && needle.first + kNeedleTokens <= tokens, "a needle at {} of {}",
                     needle.first, tokens);
    const auto at = document.begin() + needle.first;
    *at = needle.key;
    std::copy(needle.values.begin(), needle.values.end(), at + 1);
    *(at + kSlots) = kEnd;
  }
  return document;
}

std::vector<int32_t> Question(int32_t key, uint64_t seed) {
  std::vector<int32_t> question = Document(kQuestionFillers, {}, seed + 1000);
  question.push_back(key);
  return question;
}

std::vector<int32_t> AnswerWith(const Needle& needle, const Slots& seen) {
  std::vector<int32_t> answer(needle.values.begin(), needle.values.end());
  answer.push_back(kEnd);
  for (size_t slot = 0; slot < answer.size(); ++slot) {
    if (!seen[slot]) answer[slot] = kUnknown;
  }
  return answer;
}

Slots SlotsIn(const std::vector<std::vector<std::vector<int32_t>>>& there, int64_t first) {
  Slots slots;
  for (int64_t slot = 1; slot <= kSlots; ++slot) {
    const std::vector<int32_t>& tokens = there[1][(slot - 1) % kKvHeads];
    slots[slot - 1] = std::binary_search(tokens.begin(), tokens.end(), static_cast<int32_t>(first + slot));
  }
  return slots;
}

std::string TextOf(std::span<const int32_t> tokens) {
  std::string text;
  for (const int32_t token : tokens) text += Word(token);
  return text;
}

}  // namespace palimpsest::testing::induction
