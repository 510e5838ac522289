// One argument struct per operation: shapes, units and ownership, shared by every backend, by tests and
// benchmarks.
//
// Words  : T rows of a step (tokens of any sessions), H query heads, G = query heads per KV head, D head
//          size.
// Owns   : nothing; every pointer is the caller's and stays valid during the call.
// Numbers: activations float32 between operations; operands of products bf16 (or int8, by the weights'
//          format).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/coded_tile.h"
#include "kernels/digest.h"
#include "kernels/rope.h"
#include "kernels/tensor.h"

namespace palimpsest {

inline constexpr int64_t kTileSlots = 64;     // tokens per tile
inline constexpr int64_t kPanelColumns = 64;  // columns of a weight matrix packed side by side

enum class WeightFormat { kBf16, kInt8 };

// A weight matrix of `n` outputs and `k` inputs, packed once at load in panels of 64 outputs, each panel
// contiguous:
//   bf16: (n/64, k/2, 64, 2)            pairs of inputs side by side, as vdpbf16ps reads them
//   int8: (n/64, k/4, 64, 4)            quads of inputs, as vpdpbusd reads them; k a multiple of 64
//         one scale and one sum per output and group of 64 inputs: weight = scale * int8
// n is padded with zeros to whole panels.
struct PackedWeights {
  WeightFormat format = WeightFormat::kBf16;
  int64_t n = 0, k = 0;
  int64_t n_padded = 0;
  AlignedBuffer<Bf16> bf16;
  AlignedBuffer<int8_t> int8;
  AlignedBuffer<float> scales;  // int8: (n/64, k/64, 64)
  AlignedBuffer<int32_t> sums;  // int8: (n/64, k/64, 64), -128 * sum of the group's weights
  int64_t bytes() const { return bf16.size() * 2 + int8.size() + scales.size() * 4 + sums.size() * 4; }
  int64_t panels() const { return n_padded / kPanelColumns; }
};

enum class MatMulOutput {
  kStore,     // out = A W^T                        float32
  kAdd,       // out += A W^T                       float32: the residual stream
  kSiluGate,  // gated = silu(gate) * up           bf16; outputs of W alternate: 16 gate, 16 up, ...
};
struct MatMulArgs {
  Rows<const Bf16> a;  // (T, k); stride even
  const PackedWeights* weights;
  MatMulOutput output = MatMulOutput::kStore;
  Rows<float> out;   // (T, n) for kStore, kAdd
  Rows<Bf16> gated;  // (T, n/2) for kSiluGate
};

// out = x / sqrt(mean(x^2) + epsilon) * weight, rounded to bf16. hidden is a multiple of 16.
struct RmsNormArgs {
  Rows<const float> x;  // (T, hidden)
  const float* weight;  // (hidden)
  float epsilon;
  Rows<Bf16> out;  // (T, hidden)
};

// x[t] = embedding of ids[t], read from the packed (vocabulary, hidden) matrix in bf16.
struct EmbedArgs {
  std::span<const int32_t> ids;  // (T), each checked to be in [0, n) by the caller
  const PackedWeights* weights;
  Rows<float> x;  // (T, hidden)
};

// Tiles: 64 slots of K and V of one layer and KV head, in the layout the product kernels read.
//   K (D/2, 64 slots, 2) rotated to (position - base), then V (ceil(D/64), 32 slot pairs, 64, 2); bf16.
// D is a multiple of 16, up to 256. Slots beyond the count are never seen, but must hold finite numbers:
// their values are multiplied by zero.
struct TilePool {
  Bf16* data = nullptr;  // (tiles, tile_elements)
  int64_t tile_elements = 0;
  int32_t* counts = nullptr;  // (tiles) slots in use, from slot 0
  int32_t* starts = nullptr;  // (tiles) slots before this one were dropped: in use, but never seen
  int32_t* bases = nullptr;   // (tiles); may be negative
  // (tiles, 64) logical position of each slot, ascending within a tile; in any order where all of it stands
  // before every row that looks at it.
  int32_t* positions = nullptr;
  Bf16* k(int32_t tile) const { return data + tile * tile_elements; }
  Bf16* v(int32_t tile, int64_t head_size) const { return k(tile) + head_size * kTileSlots; }
  // tile_elements / kCodedRunElements runs; counts, bases and positions are of whole tiles only.
  CodedRun* coded(CodedTile tile) const {
    return reinterpret_cast<CodedRun*>(k(tile.tile)) + tile.part * (tile_elements / kCodedRunElements);
  }
};
// Elements of one tile.
inline int64_t TileElements(int64_t head_size) {
  return head_size * kTileSlots + (head_size + 63) / 64 * 64 * kTileSlots;
}

// Where one row's K and V go.
struct KvRow {
  int64_t position;      // logical
  int32_t slot;          // in its tile, the same for all heads
  Bf16* rest = nullptr;  // this layer's block at rest, (kv_heads, 2, rest_rows, D), or null: not kept
  int64_t rest_rows = 0;
  int64_t rest_stride = 0;  // elements from one head's part of it to the next's; 0: they are dense
};
// Rounds K to bf16, keeps that form at rest, rotates it in float to (position - base of the tile), rounds
// again into the tile; V is rounded once. Slots' positions, counts and bases are the caller's to set.
struct StoreKvArgs {
  Rows<const float> k;  // (T, kv_heads * D) before rotation
  Rows<const float> v;  // (T, kv_heads * D)
  int64_t kv_heads, head_size;
  const RopeTable* rope;
  TilePool pool;
  std::span<const KvRow> rows;     // (T)
  std::span<const int32_t> tiles;  // (T, kv_heads)
};

// Fills one layer's tiles (one per KV head) from a block at rest: the same numbers that StoreKv wrote.
struct LoadBlockArgs {
  const Bf16* rest;    // (kv_heads, 2, rows, D)
  int64_t stride = 0;  // elements from one head's part of it to the next's; 0: they are dense
  int64_t rows;        // tokens in the block
  int64_t kv_heads, head_size;
  int64_t first_position;  // rows are consecutive positions from here
  const RopeTable* rope;
  TilePool pool;
  const int32_t* tiles;  // (kv_heads)
};

// How much rows attend to each slot, added up over calls: the columns of the attention matrix, which is never
// there as a whole.
//   column i * 64 + slot of query head h = sum over rows r of softmax_r(...), or of its square; nothing for
//   slots that no row sees, and where q . k is not a number.
// Weights are those that attention multiplied values with: on paths whose products are of bf16, rounded to
// it. Rows join in their order, in blocks of kSumTokens from the first row of all on, and blocks in theirs:
// bits depend neither on how rows are cut into calls nor on the threads. A column is `sums` and `open`
// together.
inline constexpr int64_t kSumTokens = 64;
struct ColumnSums {
  float* sums;                    // (H, stride) of whole blocks
  float* open;                    // (H, stride) of the rows since
  float* squares = nullptr;       // the same of squared weights; null: not wanted
  float* open_squares = nullptr;  // null where squares is
  int64_t stride;                 // at least 64 times the tiles of any KV head
  int64_t rows;                   // that joined in earlier calls
};

// Where the state of rows waits whose tiles come in several calls, as there is room for them. Each call cuts
// its own tiles into splits: where all but the last bring multiples of kSplitTiles, the bits are those of one
// call. A row may see none of a call's slots.
struct CarriedAttention {
  float* state;      // Backend::CarriedFloats; the caller's, who reads nothing in it
  bool first, last;  // first: the state is empty, whatever is there; last: out is written, and only then
};

// Rows of one sequence that attend over its own tiles.
struct AttentionSequence {
  int64_t first_row, rows;                // in q and out
  const int64_t* positions;               // (rows), logical
  const std::span<const int32_t>* tiles;  // (kv_heads): tile ids in the order of accumulation
  // By how much each tile stands further back in this sequence than its own base and positions say: a tile
  // that several sequences share is at another place in each. Null: none is moved.
  const std::span<const int32_t>* shifts = nullptr;  // (kv_heads), as long as tiles
  const ColumnSums* sums = nullptr;                  // null: not wanted; with shifts or coded there are none
  // Tiles in 2 bits that come before the others: full, of base 0, seen by every row. Null: there are none.
  const std::span<const CodedTile>* coded = nullptr;  // (kv_heads)
  const CarriedAttention* carried = nullptr;          // null: all tiles are here; with sums there is none
};
// out = softmax(q k^T / sqrt(D)) v over the slots of the sequence's tiles whose position is <= the row's.
// Keys are visited in the tiles' order, in splits of kSplitTiles that are merged in order: a row's bits
// depend on its own tiles only. q is rotated to (position - shift - base) once per run of tiles for which
// that is equal; a slot is seen if its position + shift <= the row's. Each row must see at least one slot.
inline constexpr int64_t kSplitTiles = 8;
struct AttentionArgs {
  Rows<const float> q;  // (T, H * D) before rotation
  Rows<Bf16> out;       // (T, H * D)
  int64_t heads, kv_heads, head_size;
  const RopeTable* rope;
  TilePool pool;
  std::span<const AttentionSequence> sequences;
};

// Which of some keys each of others is most like, by the cosine, with a running maximum: never sources x
// targets in memory.
//   best[i] = the j of the largest cos(sources[i], targets[j]), ties to the lower; similarity[i] = that
//   cosine.
// A key without length, or with a number that is not finite, is like none: its cosines are 0.
struct MatchHead {                       // one layer and KV head
  std::span<const Bf16* const> sources;  // (n), each (D)
  std::span<const Bf16* const> targets;  // (m), each (D); m >= 1
  int32_t* best;                         // (n)
  float* similarity;                     // (n)
};
struct MatchKeysArgs {
  int64_t head_size;
  std::span<const MatchHead> heads;
};

// How much some rows attend to each slot, without the product with V. Two passes over the keys: the rows' own
// log-sum-exp, then the weights, reduced over the rows as they come: never rows x slots in memory.
//   out[g][i * 64 + slot] = sum or maximum over rows r of softmax_r(q[r, g] . k / sqrt(D)), over all slots of
//   the tiles that r sees; 0 for slots that hold nothing, or where q . k is not a number.
enum class RowReduce { kSum, kMax };
struct ScoreHead {      // one layer and KV head
  Rows<const float> q;  // (rows, group * D) before rotation
  std::span<const int32_t> tiles;
  float* out;  // (group, tiles * 64)
};
struct ScoreKeysArgs {
  std::span<const int64_t> positions;  // (rows), logical; the same for all heads
  int64_t group, head_size;
  RowReduce reduce = RowReduce::kSum;
  const RopeTable* rope;
  TilePool pool;
  std::span<const ScoreHead> heads;
};

// Where one token's K and V of one head are: at rest, or in a slot.
struct KvSource {
  const Bf16* key = nullptr;    // (D) at rest, before rotation; null: the slot's, as it is rotated
  const Bf16* value = nullptr;  // (D) at rest; null: the slot's
  int32_t tile = -1, slot = 0;
};
struct GatherHead {  // one layer and KV head
  std::span<const KvSource> sources;
  std::span<const int32_t> positions;  // of each source, where it will stand; ascending
  std::span<const int32_t> tiles;      // that receive them: source i goes to slot i % 64 of tile i / 64
};
// Packs tokens into tiles: the one operation that compacts, renumbers and loads. A key at rest is rotated to
// (position - base of its new tile), as StoreKv would have; a key of a slot is copied, so that the caller
// must give the new tile the base that makes its place right. Bases are the caller's to set before;
// positions, counts and starts are set here, of all the head's tiles. A head may be packed into tiles that it
// is read from, if no source stands before its new place in the order of the tiles.
struct GatherKvArgs {
  int64_t head_size;
  const RopeTable* rope;
  TilePool pool;
  std::span<const GatherHead> heads;
};

// Makes the digest (kernels/digest.h) of one tile of one KV head from keys at rest: rotated to their position
// and rounded, as StoreKv would have. A key with a number that is not finite is one that no query finds.
struct BuildDigestArgs {
  DigestKind kind;
  int64_t head_size;
  const Bf16* keys;        // (rows, D) at rest
  int64_t rows;            // up to 64
  int64_t first_position;  // rows are consecutive positions from here
  const RopeTable* rope;
  uint8_t* out;  // DigestBytes(kind, D)
};

// Writes tokens in 2 bits, 64 at a time: source i becomes slot i % 64 of coded tile i / 64. A key at rest is
// rotated to its position, as it would be in a tile of base 0; that of a slot is taken as it is rotated, so
// that its tile must be of base 0. No coded tile may be part of a tile that is read.
struct EncodeHead {  // one layer and KV head
  std::span<const KvSource> sources;
  std::span<const int32_t> positions;  // of each source
  std::span<const CodedTile> tiles;    // as many as 64 go into sources, without rest
};
struct EncodeKvArgs {
  int64_t head_size;
  const RopeTable* rope;
  TilePool pool;
  std::span<const EncodeHead> heads;
};

// How well the best of some queries matches the best slot of each slice, by digests alone:
//   out[i * 64 / slice + s] = maximum over the slice's slots that take part, over rows and over the group's
//   heads, of q . key / sqrt(D), approximately; minus infinity where none takes part.
// Slots take part that `slots` names and whose keys are finite; rows, whose queries are. q is rotated to
// where its row stands and rounded to bf16. Of the keys,
//   exact   is q . key;
//   q2      is q . its 2-bit form, for which q times the steps of a run is rounded to bytes of magnitude <=
//   85; minmax  is a bound above all keys of the slot's box: sum over d of max(q_d largest_d, q_d
//   smallest_d); boxmean is sum over d of max(q_d (c_d + r_d), q_d (c_d - r_d)).
// A slice's bits depend on its own slots and the queries only, not on the tiles or heads beside them; a row's
// share in them not on the rows beside it.
struct DigestHead {                       // one layer and KV head
  Rows<const float> q;                    // (rows, group * D) before rotation
  std::span<const uint8_t* const> tiles;  // digests, in any order
  std::span<const uint64_t> slots;        // of each tile, a bit a slot; of rows that its digest was made of
  float* out;                             // (tiles * 64 / slice)
};
struct ScoreDigestsArgs {
  DigestKind kind;
  int64_t group, head_size;
  int64_t slice;                       // consecutive slots: 1, 8, 16, 32 or 64
  std::span<const int64_t> positions;  // (rows) >= 0, where each query stands for ranking; for all heads
  const RopeTable* rope;
  std::span<const DigestHead> heads;
};

// out[t] = -log softmax(logits[t])[targets[t]].
struct TokenLossesArgs {
  Rows<const float> logits;          // (T, vocabulary)
  std::span<const int32_t> targets;  // (T), each checked to be in range by the caller
  std::span<float> out;              // (T)
};

}  // namespace palimpsest
