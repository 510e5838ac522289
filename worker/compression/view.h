// What stays of a prompt, at rest: for each layer and KV head the tokens and their K and V before rotation. A
// pot's resident set is one; the picks of a document's spans are one; kept, it spares the next question
// reading the document. One without tokens, but with what each of them is worth, spares the next budget
// scoring it; with what they said of each other, the next policy reading them.
//
// Memory : host memory, bounded by the policy's budget, not by the prompt: n tokens take what n tokens of
//          KV take.
// Threads: one at a time (the engine's), but for different heads.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "proto/base/ids.h"
#include "storage/tiered_store.h"
#include "worker/compression/policy.h"
#include "worker/model/query_moments.h"
#include "worker/sequence.h"

namespace palimpsest {

// One token's K and V at rest.
struct RestToken {
  const Bf16* key;    // (D)
  const Bf16* value;  // (D)
};

// Of one layer and KV head.
struct RestHead {
  std::vector<int32_t> tokens;  // index in the prompt, ascending
  std::vector<Bf16> rest;       // (n, 2, D)
  // (n) by which spans compete, or tokens of a pot that were repeated; or with no tokens of all there are to
  // choose from. Empty elsewhere.
  std::vector<float> scores;
  std::vector<float> rest_scores;  // (n) of policies of two stages, while spans compete
  // (rows, n) what queries said of each so far, which an answer that evicts goes on from; empty elsewhere.
  std::vector<float> sums;
  RestToken At(size_t i, int64_t head_size) const {
    const Bf16* key = rest.data() + i * 2 * static_cast<size_t>(head_size);
    return {key, key + head_size};
  }
  void Append(int32_t token, const RestToken& at, int64_t head_size);
};

struct View {
  std::vector<RestHead> heads;  // (layers * kv_heads)
  std::vector<float> losses;    // by prompt index, of policies that need them later
  BlockId parent;               // of a pot: the last block that went into it
  // With no tokens, of policies that need them: what was seen while all of it was read. Not written down.
  std::shared_ptr<const QueryMoments> moments;
  int64_t tokens_max() const;  // of the largest head
  int64_t bytes() const;
};

// The block group of a prompt that rests somewhere: (layers, kv_heads, 2, rows, D), a tile_stride for each
// head.
struct RestBlock {
  int64_t first = 0, rows = 0;  // tokens of the prompt
  const Bf16* data = nullptr;
  RestToken At(const KvShape& shape, int64_t layer, int64_t kv_head, int64_t token) const {
    const Bf16* key = data + (layer * shape.kv_heads + kv_head) * shape.tile_stride(rows) +
                      (token - first) * shape.head_size;
    return {key, key + rows * shape.head_size};
  }
};
// The block that holds `token`; `blocks` ascending.
const RestBlock& BlockOf(std::span<const RestBlock> blocks, int64_t token);

// What of a span competes: tokens ascending, all behind those that are there.
struct Rivals {
  std::span<const int32_t> tokens;
  Ranking ranking;  // (n) each
  std::span<const RestToken> at;
};
// Spans compete: keeps the `budget` best of what is there and of the rivals, ties to the earlier token; of
// two stages as many by each, since any of them may be among the best at last.
void Compete(int64_t budget, int64_t head_size, const Rivals& rivals, RestHead* kept);
// The best `count` of what competed.
void KeepBest(int64_t count, double first_share, int64_t head_size, RestHead* kept);

// All tokens of a head at consecutive positions from `first_position` on.
Sequence::Packing PackAtRest(const RestHead& head, int64_t head_size, int64_t first_position);
// Of every head, each token at its own position.
std::vector<Sequence::Packing> PackInPlace(const View& view, int64_t head_size);
// Of every head; the largest from `first_position` on, the others end where it does, so that what follows
// stands right behind the last token of each.
std::vector<Sequence::Packing> PackAtRest(const View& view, int64_t head_size, int64_t first_position);

// Views of finished documents, the least recently used first to go.
class ViewCache {
 public:
  explicit ViewCache(int64_t capacity_bytes) : capacity_(capacity_bytes) {}
  std::shared_ptr<const View> Find(const Hash256& key);  // null: a miss
  void Put(const Hash256& key, std::shared_ptr<const View> view);
  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    Hash256 key;
    std::shared_ptr<const View> view;
  };
  const int64_t capacity_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recent first
};

}  // namespace palimpsest
