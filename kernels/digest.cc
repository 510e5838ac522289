#include "kernels/digest.h"

#include <array>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"q2", "exact", "minmax", "boxmean"};
constexpr int64_t kSlots = 64, kHeaderBytes = 16;

}  // namespace

std::string DigestKindName(DigestKind kind) { return std::string(kNames[static_cast<size_t>(kind)]); }

absl::StatusOr<DigestKind> ParseDigestKind(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DigestKind>(i);
  }
  return InvalidArgument("digest {}: use q2, exact, minmax or boxmean", name);
}

int64_t DigestBytes(DigestKind kind, int64_t head_size) {
  switch (kind) {
    case DigestKind::kQ2:
      return kHeaderBytes + kSlots / kDigestRunSlots * head_size * (1 + 1 + kDigestRunSlots / 4);
    case DigestKind::kExact:
      return kSlots * head_size * 2;
    case DigestKind::kMinMax:
    case DigestKind::kBoxMean:
      return kHeaderBytes + kSlots / kDigestBoxSlots * head_size * 2 * 2;
  }
  PALIMPSEST_CHECK(false, "digest kind {}", static_cast<int>(kind));
}

}  // namespace palimpsest
