// The single-thread kernels that exist once per instruction set; the CPU backend cuts operations into these.
//
// Each table is compiled from the same templates (*_impl.h) in its own file with its own flags, so nothing
// here may include headers with inline functions of others: plain pointers and integers only.
#pragma once

#include <cstdint>

namespace palimpsest::cpu {

// A block of a product: `rows` rows of A against columns [column, column + columns) of one or more packed
// panels.
struct GemmBlock {
  const uint16_t* a;  // bf16 (rows, k), row stride lda; int8 class: see a8
  int64_t lda;
  const float* a_wide;  // wide_left: a widened, (rows, k); else null
  int64_t rows;
  const uint16_t* b;      // bf16 panel (k/2, 64, 2)
  int64_t k;              // even
  int64_t column;         // first column within the panel: 0 or 32
  int64_t columns;        // 32 or 64 are computed
  int64_t valid_columns;  // of them, how many exist in the output
  int output;             // MatMulOutput as int: 0 store, 1 add, 2 silu-gate
  float* out;             // at (row 0, first column)
  int64_t ldo;
  uint16_t* gated;  // kSiluGate: at (row 0, first gated column)
  int64_t ldg;
  bool stream;  // weights come from memory: prefetch ahead
  // int8 class
  const uint8_t* a8;      // (rows, k) quantised activations + 128
  const float* a_scales;  // (rows, k/64)
  const int8_t* b8;       // panel (k/4, 64, 4)
  const float* b_scales;  // (k/64, 64)
  const int32_t* b_sums;  // (k/64, 64) -128 times the sum of the weights of a group
};

// Rows of queries of one KV head against one split of tiles; state (m, l, o) is carried in and out.
struct AttendBlock {
  const uint16_t* q;    // bf16 (rows, head_size), rotated for these tiles' base
  const float* q_wide;  // wide_left: q widened; else null
  int64_t rows;
  const int64_t* positions;  // (rows)
  int64_t head_size;
  float scale_log2;      // log2(e) / sqrt(head_size)
  const uint16_t* pool;  // tiles of tile_elements
  int64_t tile_elements;
  const int32_t* counts;          // by tile id
  const int32_t* starts;          // by tile id
  const int32_t* slot_positions;  // (tile id, 64)
  const int32_t* tiles;
  int64_t tile_count;
  float* m;          // (rows) running maximum, base 2, scaled; kEmptyMax when nothing was seen
  float* l;          // (rows, 16) partial sums, one per lane
  float* o;          // (rows, o_stride) unnormalised output
  int64_t o_stride;  // head_size rounded up to 64
  // Kept if not null: the weights as they meet the values, and the maximum of each row that those of a tile
  // are relative to; of tiles that a row's neighbours do not see either, nothing.
  void* weights =
      nullptr;  // (rows, weights_stride) at the first of these tiles; float if wide_left, else bf16
  int64_t weights_stride = 0;
  float* tops = nullptr;  // (rows, tops_stride), the same
  int64_t tops_stride = 0;
};
inline constexpr float kEmptyMax = -1e30f;

// The kept weights of one query head join its columns, row by row.
struct ColumnBlock {
  int64_t rows, tiles;
  const void* weights;  // (rows, weights_stride)
  int64_t weights_stride;
  const float* factors;  // (rows, factors_stride), of each tile; 0: nothing was kept of it
  int64_t factors_stride;
  float* sums;     // (tiles, 64)
  float* squares;  // the same, or null
};

// Rows of queries of one KV head against a run of its tiles, without V. Row g * tokens + t is token t of
// query head g. A score that is not a number counts as unseen.
struct ScoreBlock {
  const uint16_t* q;    // bf16 (rows, head_size), rotated for these tiles' base
  const float* q_wide;  // wide_left: q widened; else null
  int64_t rows, tokens;
  const int64_t* positions;  // (rows)
  int64_t head_size;
  float scale_log2;      // log2(e) / sqrt(head_size)
  const uint16_t* pool;  // tiles of tile_elements
  int64_t tile_elements;
  const int32_t* counts;          // by tile id
  const int32_t* starts;          // by tile id
  const int32_t* slot_positions;  // (tile id, 64)
  const int32_t* tiles;
  int64_t tile_count;
  float* m;        // (rows) running maximum, base 2, scaled; kEmptyMax when nothing was seen
  float* l;        // (rows, 16) partial sums, one per lane
  float* inverse;  // (rows) second pass: 1 / sum of l; 0 where nothing was seen
  bool largest;    // second pass: the largest weight of the tokens, not their sum
  float* out;      // second pass: (query heads, out_stride), at the first of these tiles' slots
  int64_t out_stride;
};

// Keys against 64 others, of which each keeps the one it is most like.
struct MatchBlock {
  const uint16_t* q;    // bf16 (rows, head_size)
  const float* q_wide;  // wide_left: q widened; else null
  int64_t rows, head_size;
  const uint16_t* panel;  // bf16 (head_size / 2, 64, 2)
  const float* inverse;   // (64) 1 / length of each; 0: like none
  const float* bias;      // (64) 0; minus infinity where there is no key
  int32_t first;          // number of the panel's first key
  float* best;            // (rows) q . key / length of the best so far
  int32_t* index;         // (rows) its number
};

// Digests in their layouts (kernels/digest.h): slots that share a scale, slots of a box, bytes before the
// first.
inline constexpr int64_t kRunSlots = 32, kBoxSlots = 16, kDigestHeader = 16;

// A tile's rotated keys of which a digest is made.
struct DigestKeys {
  const uint16_t* keys;  // bf16 (rows, head_size)
  int64_t rows;          // up to 64
  int64_t head_size;
  uint64_t slots;  // those whose numbers are all finite: the others take no part
  uint8_t* out;
};

// Rows of queries of one KV head against digests; each row by itself, of which each slot keeps the best, and
// each slice the best of its slots.
struct DigestBlock {
  const uint8_t* const* tiles;
  const uint64_t* slots;  // of each tile, those that take part
  int64_t tile_count;
  int64_t rows, head_size;
  int64_t slice;           // slots of one number of `out`
  float scale;             // 1 / sqrt(head_size)
  const int16_t* q_fixed;  // q2: (rows, head_size), each row over its largest magnitude times 32767
  const float* q_units;    // q2: (rows, and 3 more) that magnitude / 32767 * scale
  const uint16_t* q;       // exact: bf16 (rows, head_size)
  const float* q_wide;     // exact and wide_left: q widened; boxes: (rows, 2, head_size), the factors of a
                           // box's two numbers
  float* out;              // (tile_count, 64 / slice)
};

struct IsaKernels {
  const char* name;
  bool int8;
  bool wide_left;  // products multiply floats: whoever fills a block widens the left operand once for many
  void (*gemm_bf16)(const GemmBlock&);
  void (*gemm_int8)(const GemmBlock&);
  // One row: out = bf16(x * weight / sqrt(mean(x^2) + epsilon)); n a multiple of 16
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t n, uint16_t* out);
  // One head: bf16(x rotated by the table row); size a multiple of 16
  void (*rotate)(const float* x, const float* rope, int64_t head_size, uint16_t* out);
  void (*round)(const float* x, int64_t n, uint16_t* out);  // to bf16, n a multiple of 16
  void (*widen)(const uint16_t* x, int64_t n, float* out);  // from bf16
  void (*attend)(const AttendBlock&);
  // A tile from 2 bits: so many CodedRuns (kernels/coded_tile.h), 64 elements of bf16 each.
  void (*decode_tile)(const uint8_t* coded, int64_t runs, uint16_t* out);
  // State b joins state a (a before b): rows of m, (rows, 16) l, (rows, o_stride) o.
  void (*merge)(int64_t rows, int64_t o_stride, float* m, float* l, float* o, const float* m_b,
                const float* l_b, const float* o_b);
  // out[r] = bf16(o[r] / l[r]) for each row; out stride in elements
  void (*finish)(int64_t rows, int64_t head_size, const float* l, const float* o, int64_t o_stride,
                 uint16_t* const* out);
  // First pass of scores: m and l. Second pass: out, from m and inverse.
  void (*score_sums)(const ScoreBlock&);
  void (*score_weights)(const ScoreBlock&);
  // tops[t] = 2^(tops[t] - m) * inverse for `count` of them, a multiple of 16.
  void (*factors)(float* tops, int64_t count, float m, float inverse);
  void (*sum_columns)(const ColumnBlock&);
  void (*match)(const MatchBlock&);
  // The largest of x and the sum of e^(x - largest); what is not a number is passed over.
  void (*sum_exp)(const float* x, int64_t n, float* largest, float* sum);
  // Digests: q2 of keys, boxes of keys (minmax, or else middle and distance), scores of each form.
  void (*digest_q2)(const DigestKeys&);
  void (*digest_boxes)(const DigestKeys&, bool minmax);
  void (*score_q2)(const DigestBlock&);
  void (*score_exact)(const DigestBlock&);
  void (*score_boxes)(const DigestBlock&);
  // u8 = round(x * 127 / max|x|) + 128 and the scale, per group of 64
  void (*quantize_row)(const uint16_t* x, int64_t k, uint8_t* out, float* scales);
  // Yardsticks: seconds of `rounds` rounds; each is kPeakOps multiply-adds of its class.
  void (*peak_bf16)(int64_t rounds);
  void (*peak_int8)(int64_t rounds);
  void (*read)(const void* data, int64_t bytes);
};
inline constexpr int64_t kPeakMultiplyAddsBf16 = 24 * 32 * 16;  // per round
inline constexpr int64_t kPeakMultiplyAddsInt8 = 24 * 64 * 16;

const IsaKernels& Avx512Kernels();
const IsaKernels& Avx2Kernels();
const IsaKernels& PortableKernels();

}  // namespace palimpsest::cpu
