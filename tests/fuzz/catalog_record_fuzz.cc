// The readers of catalog records take any bytes; what they accept, they write back unchanged.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/catalog_record.h"
#include "proto/base/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (uint8_t kind = 1; kind <= 5; ++kind) {
    const auto body = OpenRecord(static_cast<RecordKind>(kind), "key", bytes);
    if (body.ok()) PALIMPSEST_CHECK(SealRecord(static_cast<RecordKind>(kind), "key", *body) == bytes);
  }
  // Bodies without the checksum, which random bytes would never pass.
  if (const auto info = DecodeInfo(bytes); info.ok()) {
    PALIMPSEST_CHECK(EncodeInfo(*info) == bytes);
    PALIMPSEST_CHECK(info->text_bytes <= kTextBytesMax && info->path.size() <= kPathBytesMax);
  }
  if (const auto tokens = DecodeTokens(bytes); tokens.ok()) PALIMPSEST_CHECK(EncodeTokens(*tokens) == bytes);
  std::vector<int32_t> ids;
  if (AppendTokenChunk(bytes, size / 4, &ids).ok()) {
    PALIMPSEST_CHECK(EncodeTokenChunk(ids.data(), ids.size()) == bytes);
  }
  const auto content = ContentOfKey(bytes);
  if (content.has_value() && bytes.size() == 33 && bytes[0] == 'i')
    PALIMPSEST_CHECK(InfoKey(*content) == bytes);
  return 0;
}
