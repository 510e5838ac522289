// A Llama whose weights are constructed, not trained: it finds `KEY v1 ... v7 END` anywhere in a text and
// answers a question that ends in KEY with `v1 ... v7 END`. Each of the 8 tokens of the answer is right
// exactly if one known entry of the cache was attended, and UNKNOWN otherwise, so an answer names what was
// there (docs/induction-model.md; the law is in induction_text.h).
//
//   std::shared_ptr<const GgufFile> model = InductionModel({});
//   PALIMPSEST_CHECK(WriteInductionModel({.context = 8192}, path).ok());
//
// Two layers, width 512, 8 query heads, 2 KV heads of 64, 512 tokens, bf16: 5.3 MB, and 1 KiB of KV a token.
// Layer 1 has a head for each of the distances 1 to 8, which tells every token what stands so far before it.
// Layer 2 compares that with what the newest token wants and copies the value that stands there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "tests/testing/gguf_writer.h"
#include "text/gguf.h"

namespace palimpsest::testing {

namespace induction {

// Token ids. All are words of plain text (" kab", " vac", " wxyz"), so that a document is text that the
// tokenizer cuts back into exactly these ids.
inline constexpr int32_t kBos = 0, kEnd = 1, kUnknown = 2, kParagraph = 3;  // "<s>" " ." " ?" "\n\n"
inline constexpr int32_t kKeys = 64, kValues = 100, kFillers = 344, kVocabulary = 512;
constexpr int32_t Key(int32_t i) { return 4 + i; }
constexpr int32_t Value(int32_t j) { return 4 + kKeys + j; }
constexpr int32_t Filler(int32_t i) { return 4 + kKeys + kValues + i; }

inline constexpr int64_t kSlots = 8;  // tokens of an answer: seven values and END
inline constexpr int64_t kHidden = 512, kHeads = 8, kKvHeads = 2, kHeadSize = 64;

// The text of a token: a space, the kind of word, its number in base 26.
std::string Word(int32_t id);

// One of 1,024 codes of 32 signs: 0 <= a, b < 32. The product of two is 32 if they are the same, else -8, 0
// or 8; the product sign by sign of (0, h) and (a, b) is (a, b xor h).
std::array<float, 32> Code(int a, int b);

}  // namespace induction

struct InductionModelOptions {
  // Of the file's metadata alone: the weights hold to 2^23 (positions are exact to 2^24). Documents beyond it
  // are read in spans.
  int64_t context = int64_t{1} << 23;
  // The heads of layer 2 that look from KEY at slots 2 to 7. They write nothing: they vote, so that a policy
  // or a recall that sees the question finds the whole needle at once. Without them it finds slot 1.
  bool scouts = true;
};

GgufWriter InductionModelWriter(const InductionModelOptions& options);
// Parsed in memory; owns its bytes.
std::shared_ptr<const GgufFile> InductionModel(const InductionModelOptions& options);
absl::Status WriteInductionModel(const InductionModelOptions& options, const std::string& path);

}  // namespace palimpsest::testing
