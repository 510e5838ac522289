// Names blocks by everything they were computed from (invariant I-1): equal id, equal bytes.
//
// One id names a block *group*: the blocks of all layers for the same run of at most `block_tokens` tokens.
// They are computed together, sealed together and live under one key; the layer is a place inside the value,
// not in the name.
//
// id = HMAC-SHA-256(tenant key, canonical encoding). The encoding is, in this order, the domain text, every
// field of the schema, the parent id, the start position and the token ids; each field is its length in bytes
// (8 bytes, little-endian) and then its bytes (integers little-endian, rope base as IEEE 754 binary64, token
// ids 4 bytes each). The lengths keep adjacent fields apart. The tenant key makes ids of one tenant
// unguessable to another (I-8).
//
// Not in an id: the document, the number of the span in it (equal spans are shared), and the policy that
// compresses later. Changing any line of the encoding is a new `format_version`: tests hold golden ids.
// Threads: a BlockChain is immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "proto/base/ids.h"

namespace palimpsest {

// What is equal for all blocks of one model, layout and way of prefilling. A field that could change the
// bytes of a block belongs here; forgetting one is serving stale KV.
struct BlockKeySchema {
  Hash256 model_hash;    // content of the whole model package: weights, tokenizer, template
  Hash256 adapter_hash;  // content of the adapter; zero without one
  int32_t layers = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;         // elements
  int32_t attention_window = 0;  // tokens; 0: everything before
  double rope_base = 0;          // theta
  int32_t rope_dimension = 0;    // elements of a head that are rotated
  std::string rope_scaling;      // its parameters as canonical text; empty: none
  std::string kv_dtype;          // how numbers are written, with parameters ("bf16")
  std::string layout;            // layout id, with whether keys are rotated ("head-major/unrotated")
  uint32_t format_version = 1;   // of the values that the id names
  int32_t block_tokens = 64;     // most tokens of a block
  std::string numerics_class;    // backend, dispatch path, weight format: results are equal within one class
  std::string prefill_mode;      // exact | anchored | pot
  // Canonical text; empty: none.
  std::string prefill_parameters;
  std::array<uint8_t, 32> tenant_key{};
};

// The schema for comparing and for people, as `name=value` fields; without the model's and the adapter's
// hash, which are compared on their own, and without the tenant key, which is secret.
std::string CanonicalText(const BlockKeySchema& schema);

class BlockChain {
 public:
  explicit BlockChain(const BlockKeySchema& schema);

  // The parent of a chain's first block.
  BlockId Root() const;

  // The id of the block that follows `parent` and holds `tokens`, the first at `start_position`.
  // Requires 1 <= tokens.size() <= block_tokens and start_position >= 0.
  // In pot mode the parent is a hash of the resident set instead of the block before.
  BlockId Next(const BlockId& parent, int64_t start_position, std::span<const int32_t> tokens) const;

 private:
  std::string key_;      // 32 bytes; secret
  std::string encoded_;  // the schema's fields, encoded once
  int32_t block_tokens_;
};

}  // namespace palimpsest
