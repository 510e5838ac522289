// The known name that a user probably meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace palimpsest {

// How many insertions, deletions, substitutions and swaps of neighbours turn `a` into `b`; case and '-'
// against '_' cost nothing. The restricted form: no edit inside a swapped pair.
int EditDistance(std::string_view a, std::string_view b);

// The candidate nearest to `name`, the first of several; "" if none is near: at most a third of the longer
// name may differ, and always one letter. Names over 128 bytes have no neighbours.
std::string Nearest(std::string_view name, std::span<const std::string> candidates);

// For the end of an error: "; did you mean budget?", or "" if nothing is near.
std::string DidYouMean(std::string_view name, std::span<const std::string> candidates);

}  // namespace palimpsest
