// The definition of every operation of kernels/ops.h: plain float64 loops over plain indices, written to be
// read. A backend is right when it matches these within the bounds derived in tests/kernels.
//
// Shapes : as in kernels/ops.h; T rows, H query heads, D head size. Nothing here is fast.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace palimpsest::reference {

struct Matrix {
  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), data(static_cast<size_t>(r * c), 0.0) {}
  double& operator()(int64_t r, int64_t c) { return data[static_cast<size_t>(r * columns + c)]; }
  double operator()(int64_t r, int64_t c) const { return data[static_cast<size_t>(r * columns + c)]; }

  int64_t rows = 0, columns = 0;
  std::vector<double> data;  // (rows, columns)
};

// The nearest number with 8 significant bits, ties to even; zero below 2^-126, infinite from halfway to
// 2^128.
double RoundToBf16(double x);
Matrix RoundToBf16(const Matrix& x);
Matrix Abs(const Matrix& x);

// out(t, j) = sum over i of a(t, i) w(j, i). a (T, k), w (n, k) -> (T, n). Operands are taken as they are:
// the caller rounds them to bf16.
Matrix MatMul(const Matrix& a, const Matrix& w);
double Silu(double x);
// out(t, 16 b + c) = silu(product(t, 32 b + c)) * product(t, 32 b + 16 + c), c < 16. (T, n) -> (T, n/2).
Matrix SiluGate(const Matrix& product);
// out(t, i) = x(t, i) / sqrt(mean over i of x^2 + epsilon) * weight(i).
Matrix RmsNorm(const Matrix& x, std::span<const float> weight, double epsilon);
// out(t, i) = w(ids[t], i).
Matrix Embed(std::span<const int32_t> ids, const Matrix& w);

struct Rope {
  int64_t head_size, rope_size;
  double theta;
  std::vector<double> factors;  // (rope_size/2), or shorter: 1 from there on
};
// Pair (2i, 2i+1) of x (D) turned by the angle offset * theta^(-2i/rope_size) / factors[i].
std::vector<double> Rotate(const Rope& rope, int64_t offset, std::span<const double> x);

// Where element i of a slot's key and value stands in its tile, and where it stands in a block at rest.
int64_t KeyIndex(int64_t slot, int64_t i);
int64_t ValueIndex(int64_t head_size, int64_t slot, int64_t i);
int64_t RestIndex(int64_t rest_rows, int64_t head_size, int64_t kv_head, bool value, int64_t slot, int64_t i);

// Element `index` of a tile (as above) as it comes back from 2 bits.
double CodedElement(const CodedRun* tile, int64_t index);

// What StoreKv keeps of one token and KV head: k and v are (D) before rounding, offset = position - base.
struct StoredToken {
  std::vector<double> rest_key;  // bf16
  std::vector<double> tile_key;  // rest_key rotated; its last rounding to bf16 is left to the reader
  std::vector<double> value;     // bf16, at rest and in the tile
};
StoredToken StoreToken(const Rope& rope, int64_t offset, std::span<const float> k, std::span<const float> v);

// Attention over the tiles as they are, with q rotated, then rounded to bf16. Everything after that is exact.
struct AttentionResult {
  Matrix out;        // (T, H * D)
  Matrix magnitude;  // (T, H * D): sum of p |v| / sum of p, what rounding errors of the sums scale with
  // What errors of a score scale with, in units of the natural exponent; the largest over the visible slots.
  Matrix score_magnitude;  // (T, H): sum of |q k| / sqrt(D)
  Matrix score_ties;       // (T, H): how far the score moves if every q that lies within float error of a tie
                           //         rounds to bf16 the other way; mostly zero
};
AttentionResult Attention(const AttentionArgs& args, const Rope& rope);

// Weights of the keys of one head, reduced over the rows; q is rotated, then rounded to bf16, the rest is
// exact.
struct ScoreResult {
  Matrix out;  // (group, tiles * 64)
  // As above, of the row and query head where it is largest.
  double score_magnitude = 0, score_ties = 0;
};
ScoreResult ScoreKeys(const ScoreKeysArgs& args, const ScoreHead& head, const Rope& rope);

// log(sum of e^logits) - logits[target]. An infinite loss where the target has no chance.
double TokenLoss(std::span<const float> logits, int64_t target);

}  // namespace palimpsest::reference
