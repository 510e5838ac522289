// A tile in 8 or 4 bits comes from a disk: whatever its bytes, it decodes to finite numbers or is refused.
// The first byte says the format, the second the tokens.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/tensor.h"
#include "proto/base/status.h"
#include "storage/block_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  constexpr int64_t kHeadSize = 4;
  if (size < 2) return 0;
  const BlockFormat format = data[0] % 2 == 0 ? BlockFormat::kInt8 : BlockFormat::kInt4;
  const int64_t tokens = data[1] % 8;
  const std::span<const uint8_t> bytes(data + 2, size - 2);
  std::vector<uint8_t> bf16(TilePayloadBytes(BlockFormat::kBf16, tokens, kHeadSize));
  if (!DecodeTile(format, tokens, kHeadSize, bytes, bf16).ok()) return 0;
  PALIMPSEST_CHECK(bytes.size() == TilePayloadBytes(format, tokens, kHeadSize));
  for (size_t i = 0; i < bf16.size(); i += 2) {
    Bf16 x;
    std::memcpy(&x, bf16.data() + i, 2);
    PALIMPSEST_CHECK(!std::isnan(Bf16ToFloat(x)));
  }
  return 0;
}
