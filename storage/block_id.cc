#include "storage/block_id.h"

#include <fmt/format.h>

#include <bit>
#include <string_view>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

void AppendLittleEndian(std::string* out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

// One field: its length, then its bytes.
void AppendBytes(std::string* out, std::string_view bytes) {
  AppendLittleEndian(out, bytes.size(), 8);
  out->append(bytes);
}

void AppendInteger(std::string* out, uint64_t value, int bytes) {
  AppendLittleEndian(out, static_cast<uint64_t>(bytes), 8);
  AppendLittleEndian(out, value, bytes);
}

void AppendInt32(std::string* out, int32_t value) { AppendInteger(out, static_cast<uint32_t>(value), 4); }

std::string_view Bytes(const Hash256& hash) {
  return {reinterpret_cast<const char*>(hash.bytes.data()), hash.bytes.size()};
}

std::string EncodeSchema(const BlockKeySchema& schema) {
  std::string out;
  AppendBytes(&out, Bytes(schema.model_hash));
  AppendBytes(&out, Bytes(schema.adapter_hash));
  AppendInt32(&out, schema.layers);
  AppendInt32(&out, schema.query_heads);
  AppendInt32(&out, schema.kv_heads);
  AppendInt32(&out, schema.head_size);
  AppendInt32(&out, schema.attention_window);
  AppendInteger(&out, std::bit_cast<uint64_t>(schema.rope_base), 8);
  AppendInt32(&out, schema.rope_dimension);
  AppendBytes(&out, schema.rope_scaling);
  AppendBytes(&out, schema.kv_dtype);
  AppendBytes(&out, schema.layout);
  AppendInteger(&out, schema.format_version, 4);
  AppendInt32(&out, schema.block_tokens);
  AppendBytes(&out, schema.numerics_class);
  AppendBytes(&out, schema.prefill_mode);
  AppendBytes(&out, schema.prefill_parameters);
  return out;
}

}  // namespace

std::string CanonicalText(const BlockKeySchema& s) {
  return fmt::format(
      "layers={} query_heads={} kv_heads={} head_size={} attention_window={} rope_base={} rope_dimension={} "
      "rope_scaling={} kv_dtype={} layout={} format_version={} block_tokens={} numerics_class={} "
      "prefill_mode={} prefill_parameters={}",
      s.layers, s.query_heads, s.kv_heads, s.head_size, s.attention_window, s.rope_base, s.rope_dimension,
      s.rope_scaling, s.kv_dtype, s.layout, s.format_version, s.block_tokens, s.numerics_class,
      s.prefill_mode, s.prefill_parameters);
}

BlockChain::BlockChain(const BlockKeySchema& schema)
    : key_(reinterpret_cast<const char*>(schema.tenant_key.data()), schema.tenant_key.size()),
      encoded_(EncodeSchema(schema)),
      block_tokens_(schema.block_tokens) {}

BlockId BlockChain::Root() const {
  std::string message;
  AppendBytes(&message, "palimpsest root");
  message += encoded_;
  return BlockId{HmacSha256(key_, message)};
}

BlockId BlockChain::Next(const BlockId& parent, int64_t start_position,
                         std::span<const int32_t> tokens) const {
  PALIMPSEST_CHECK(!tokens.empty() && tokens.size() <= static_cast<size_t>(block_tokens_),
                   "{} tokens in a block of at most {}", tokens.size(), block_tokens_);
  PALIMPSEST_CHECK(start_position >= 0, "start position {}", start_position);
  std::string message;
  message.reserve(encoded_.size() + 128 + 4 * tokens.size());
  AppendBytes(&message, "palimpsest block");
  message += encoded_;
  AppendBytes(&message, Bytes(parent));
  AppendInteger(&message, static_cast<uint64_t>(start_position), 8);
  AppendLittleEndian(&message, 4 * tokens.size(), 8);
  for (int32_t token : tokens) AppendLittleEndian(&message, static_cast<uint32_t>(token), 4);
  return BlockId{HmacSha256(key_, message)};
}

}  // namespace palimpsest
