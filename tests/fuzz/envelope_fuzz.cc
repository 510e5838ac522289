// The envelope reader takes any bytes; what it accepts is exactly what sealing the same content writes.
#include <cstdint>
#include <vector>

#include "proto/base/status.h"
#include "storage/envelope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  const std::vector<uint8_t> bytes(data, data + size);
  if (const auto opened = VerifyEnvelope(bytes); opened.ok()) {
    std::vector<uint8_t> again = bytes;
    SealEnvelope(opened->id, opened->geometry, again);
    PALIMPSEST_CHECK(again == bytes, "sealing an accepted envelope again changed it");
    PALIMPSEST_CHECK(OpenEnvelope(opened->id, opened->geometry, bytes).ok());
  }
  // A random input never has the right checksum, so the same bytes are also tried as a payload and as a
  // geometry.
  if (size < 21) return 0;
  const auto dimension = [&](size_t at) { return 1 + (data[at] | data[at + 1] << 8); };
  const BlockGeometry geometry = {.layers = dimension(0),
                                  .kv_heads = dimension(2),
                                  .head_size = dimension(4),
                                  .tokens = dimension(6),
                                  .format = 1u + data[8]};
  std::vector<uint8_t> sealed(kEnvelopeHeaderBytes);
  sealed.insert(sealed.end(), data + 20, data + size);
  SealEnvelope(BlockId{}, geometry, sealed);
  PALIMPSEST_CHECK(OpenEnvelope(BlockId{}, geometry, sealed).ok());
  sealed[static_cast<size_t>(data[9] | data[10] << 8) % sealed.size()] ^=
      static_cast<uint8_t>(1 + data[11] % 255);
  PALIMPSEST_CHECK(!VerifyEnvelope(sealed).ok(), "a changed byte was accepted");
  return 0;
}
