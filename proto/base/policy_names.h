// The words of a policy's choices, in the order of the enumerators. Seen by policy_*.cc alone.
#pragma once

#include <span>
#include <string_view>

namespace palimpsest::policy_names {

inline constexpr std::string_view kPools[] = {"max", "avg", "none"};
inline constexpr std::string_view kReduces[] = {"mean", "max", "sum"};
inline constexpr std::string_view kOrders[] = {"reduce-pool", "pool-reduce"};
inline constexpr std::string_view kDivisors[] = {"padded", "valid"};
inline constexpr std::string_view kNormalizes[] = {"none", "queries"};
inline constexpr std::string_view kTextPriors[] = {"soft", "hard", "none"};
inline constexpr std::string_view kLasts[] = {"stays", "free"};
inline constexpr std::string_view kDecodes[] = {"keep", "evict"};
inline constexpr std::string_view kMerges[] = {"none",      "averaged",   "pivotal", "weighted",
                                               "threshold", "normalized", "values"};
inline constexpr std::string_view kKeys[] = {"rotated", "rest"};
inline constexpr std::string_view kShares[] = {"blend", "guard"};
inline constexpr std::string_view kAttends[] = {"all", "part"};
inline constexpr std::string_view kResidents[] = {"bf16", "kivi2"};
inline constexpr std::string_view kSwitch[] = {"no", "yes"};

template <typename E>
std::string_view NameOf(std::span<const std::string_view> names, E value) {
  return names[static_cast<size_t>(value)];
}

}  // namespace palimpsest::policy_names
