// Which passages of a document use the rare words of a question: keyword search over token ids, beside which
// attention's own choice stands. A few percent of the heads of a small model look for what a question names;
// where its words are, every head sees it.
//
// A word is a token id. It weighs the square of its inverse document frequency, log(slices / slices that
// hold it), as in a cosine of tf-idf vectors: not squared, a few words of middling rarity that meet by chance
// weigh more than one that stands nowhere else. And the more, the closer to the end of the question it
// stands, since a conversation's earlier turns are in it. A passage is a slice and its neighbors within 16
// tokens; a word of the middle slice counts whole, of a neighbor three quarters, each once.
//
// Source : Spärck Jones 1972 (idf); docs/recall.md: what was measured.
// Cost   : three looks at each token of the document, 60 ms for a million.
// Threads: pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/recall/document_index.h"

namespace palimpsest {

// Numbers (block * (64 / slice) + place) of the at most `count` slices of the passages that share most,
// ascending: the best passage and those that share at least half as much; none where the best shares less
// than half of what a word weighs that stands in one slice alone. Equal ones go by their place. `prompt`: all
// tokens, by whose numbers the blocks go, from `question_first` on the question; `counts`: tokens of each
// block that can come back.
std::vector<int32_t> SlicesSharingWords(std::span<const int32_t> prompt, int64_t question_first,
                                        std::span<const IndexedBlock> blocks, std::span<const int32_t> counts,
                                        int64_t slice, int64_t count);

}  // namespace palimpsest
