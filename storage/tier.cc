#include "storage/tier.h"

#include <utility>

namespace palimpsest {

absl::Status Tier::PutParts(const BlockId& id, std::span<const std::span<const uint8_t>> parts) {
  size_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  std::vector<uint8_t> value;
  value.reserve(bytes);
  for (const auto& part : parts) value.insert(value.end(), part.begin(), part.end());
  return Put(id, std::move(value));
}

}  // namespace palimpsest
