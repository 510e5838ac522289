// Where anchored prefill cuts a document: spans of at most so many tokens that end where the text does.
//
// Cut   : after the last blank line of the last eighth; if there is none after its last line, else its last
//         sentence, else between two words, else between two characters.
// Tail  : the last span has kSpanTail tokens or more, unless the document is shorter or `most` is below twice
//         that.
// Equal : the same tokens, tokenizer and `most` give the same cuts. A cut depends on nothing behind its span
//         but the number of tokens that are left, and that only near the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace palimpsest {

inline constexpr int64_t kSpanTail = 64;

// Where each span ends, ascending; the last one at tokens.size(). None of no tokens. `most` is at least 1.
std::vector<size_t> CutSpans(std::span<const int32_t> tokens, int64_t most, const Tokenizer& tokenizer);

}  // namespace palimpsest
