// Documents and questions for the induction model, and the law of what it answers.
//
// The law: with the KEY of a needle at token p, slot s (1 to 8) of the answer comes from the one entry p + s
// of layer 2, KV head (s - 1) mod 2. It is right if that entry is attended, and UNKNOWN if not; whatever else
// is in the cache makes no difference, as long as
//   - BOS is there in layer 2, and the answering token's last 7 neighbours are in layer 1;
//   - each token of the needle was read with its KEY in layer 1, that many places before it;
//   - each key has one needle at most, keys are 9 tokens apart at least, and the question ends in the KEY
//   after
//     8 tokens or more without one.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/testing/induction_model.h"

namespace palimpsest::testing::induction {

struct Needle {
  int32_t key;                    // its token
  std::array<int32_t, 7> values;  // theirs
  int64_t first;                  // place of KEY in the document
};
inline constexpr int64_t kNeedleTokens = 1 + kSlots;

// `count` needles with keys of their own and random values, evenly from the beginning of a document to its
// end but for the last kQuietTail tokens: what follows a key looks for it, and a policy whose window does
// that at the end of a document finds needles by chance. REQUIRES: count < kKeys (Key(63) is never used), and
// room for them.
inline constexpr int64_t kQuietTail = 48;
std::vector<Needle> SpreadNeedles(int64_t tokens, int64_t count, uint64_t seed);
// A document of random fillers with the needles in it.
std::vector<int32_t> Document(int64_t tokens, std::span<const Needle> needles, uint64_t seed);
// Fillers, then the key.
std::vector<int32_t> Question(int32_t key, uint64_t seed);

using Slots = std::array<bool, kSlots>;
inline constexpr Slots kAllSlots = {true, true, true, true, true, true, true, true};
// What is answered with these slots in sight: 8 tokens.
std::vector<int32_t> AnswerWith(const Needle& needle, const Slots& seen);
// Slots whose entries are among what (layer, kv_head, token) says is there, by a KEY at token `first`.
Slots SlotsIn(const std::vector<std::vector<std::vector<int32_t>>>& there, int64_t first);

// As the tokenizer of the model reads and writes them.
std::string TextOf(std::span<const int32_t> tokens);

}  // namespace palimpsest::testing::induction
