#include "storage/tier.h"

#include <array>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {

std::string_view NameOf(ValueKind kind) {
  static constexpr std::array<std::string_view, kValueKinds> kNames = {"block", "index", "picks"};
  const auto number = static_cast<size_t>(kind);
  PALIMPSEST_CHECK(number < kNames.size(), "value kind {}", number);
  return kNames[number];
}

std::string TierKey::ToString() const { return fmt::format("{} {}", NameOf(kind), id.ToHex()); }

absl::Status Tier::Put(const TierKey& key, std::vector<uint8_t> value, uint32_t parts) {
  if (value.capacity() != value.size()) value.shrink_to_fit();  // else memory that nobody counts
  const TierItem item{key, std::make_shared<const std::vector<uint8_t>>(std::move(value)), parts};
  return Put({&item, 1});
}

std::vector<absl::Status> Tier::GetTogether(std::span<const TierKey> keys, const TakeParts& take) {
  std::vector<absl::Status> answers;
  for (size_t i = 0; i < keys.size(); ++i) {
    const absl::StatusOr<TierView> view = Get(keys[i]);
    if (view.ok()) take(i, 0, view->bytes.size(), view->bytes);
    answers.push_back(view.status());
  }
  return answers;
}

absl::Status CheckTierItems(std::string_view tier, std::span<const TierItem> items) {
  for (const TierItem& item : items) {
    if (item.value == nullptr || item.value->empty()) {
      return InvalidArgument("{} tier: {} has an empty value", tier, item.key.ToString());
    }
    if (item.parts == 0 || item.value->size() % item.parts != 0) {
      return InvalidArgument("{} tier: {} has {} bytes, which are not {} equal parts", tier,
                             item.key.ToString(), item.value->size(), item.parts);
    }
  }
  return absl::OkStatus();
}

absl::Status NoSuchPart(std::string_view tier, const TierKey& key, uint32_t part, uint32_t parts) {
  return Error(absl::StatusCode::kOutOfRange, "{} tier: part {} of {}, which has {} parts", tier, part,
               key.ToString(), parts);
}

}  // namespace palimpsest
