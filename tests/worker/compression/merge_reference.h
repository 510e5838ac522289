// Merging in float64, by the words of worker/compression/merging.h.
#pragma once

#include <vector>

#include "proto/base/policy_spec.h"

namespace palimpsest::reference {

struct Token {
  std::vector<double> key, value;  // before rotation
};
using Tokens = std::vector<Token>;

// 0 of what has no length.
double Cosine(const std::vector<double>& a, const std::vector<double>& b);
// What stays, afterwards.
Tokens Merge(PolicySpec::Merge merge, const Tokens& stays, const Tokens& goes);

}  // namespace palimpsest::reference
