// Which tokens each KV head keeps, in few bytes: what a page that shows them carries.
//
// Form : for each head, layer by layer: a form byte, a count, so much content. Numbers are base-128, low
//        groups first, the high bit says that more follow.
//          0 runs: `count` numbers, in turn how many places are left out and how many are taken
//          1 bits: `count` bytes; bit i (of value 1 << i) of byte b is place 8 b + i
//          2, 3  : the same, but places count the candidates: what this head kept a step before, then all
//                  tokens from that step's read() on. A pot keeps only such, so a step costs a bit for each
//                  token of the pot, however long the text.
//        The shortest of them is taken.
// Reader: apps/inspect_page/data.js.
#pragma once

#include <string>

#include "worker/engine.h"

namespace palimpsest {

// Codes steps in order. REQUIRES: ascending tokens; as many layers and heads in every step.
class KeptCoder {
 public:
  std::string Encode(const Outcome::Kept& kept);
  // A token that was kept by any head so far, plus 1.
  int64_t read() const { return read_; }

 private:
  Outcome::Kept before_;
  int64_t read_ = 0;
};

std::string Base64(std::string_view bytes);

}  // namespace palimpsest
