// What AttentionAudit measures.
#pragma once

namespace palimpsest {

// Of one layer: means over the tokens of the answer and the query heads.
struct AttentionShare {
  double resident = 0;  // of the attention, on what stayed, the question and the answer
  double seen = 0;      // on that and what would have come back
  // |attention over what is seen - over everything| / |over everything|, of a head's output, before W_o
  double error = 0;
};

}  // namespace palimpsest
