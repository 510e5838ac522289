#include "tests/testing/digest_reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace palimpsest::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t At(int64_t i) { return static_cast<size_t>(i); }

double Bf16At(const uint8_t* bytes) {
  Bf16 x;
  std::memcpy(&x, bytes, 2);
  return static_cast<double>(Bf16ToFloat(x));
}

// A query after rotation; error[d]: how far the backend's may be. It rotates in float, then rounds to bf16.
struct Query {
  std::vector<double> q, error;
  bool finite = true;
};
Query QueryOf(const Rope& rope, int64_t position, const float* x) {
  const std::vector<double> wide(x, x + rope.head_size);
  Query query{.q = Rotate(rope, position, wide), .error = {}};
  for (size_t i = 0; i < wide.size(); ++i) {
    query.finite &= std::isfinite(wide[i]);
    query.error.push_back(0x1p-8 * std::abs(query.q[i]) +
                          0x1p-21 * (std::abs(wide[i]) + std::abs(wide[i ^ 1])));
  }
  return query;
}

struct Scored {
  double score, bound;
};

// q . k of D terms. Sums of floats in any order err by D / 2 roundings of the sum of magnitudes, or fewer.
Scored ScoreExact(const Query& q, const Matrix& keys, int64_t slot) {
  double score = 0, magnitude = 0, ties = 0;
  for (int64_t d = 0; d < keys.columns; ++d) {
    score += q.q[At(d)] * keys(slot, d);
    magnitude += std::abs(q.q[At(d)] * keys(slot, d));
    ties += q.error[At(d)] * std::abs(keys(slot, d));
  }
  return {score, ties + 1.01 * static_cast<double>(keys.columns + 8) * 0x1p-24 * magnitude};
}

bool IsFinite(const Matrix& keys, int64_t slot) {
  for (int64_t d = 0; d < keys.columns; ++d) {
    if (!std::isfinite(keys(slot, d))) return false;
  }
  return true;
}

// What stands for the keys of each box (4, D): between `low` and `high` of each channel, off by `error`.
struct Boxes {
  Matrix low{4, 0}, high{4, 0}, error{4, 0};
};
Boxes BoxesOf(DigestKind kind, const Matrix& keys) {
  Boxes out{.low = Matrix(4, keys.columns), .high = out.low, .error = out.low};
  for (int64_t slot = 0; slot < keys.rows; slot += kDigestBoxSlots) {
    for (int64_t d = 0; d < keys.columns; ++d) {
      std::vector<double> values;
      for (int64_t s = slot; s < std::min(slot + kDigestBoxSlots, keys.rows); ++s) {
        if (IsFinite(keys, s)) values.push_back(keys(s, d));
      }
      if (values.empty()) continue;
      const auto [least, most] = std::minmax_element(values.begin(), values.end());
      const int64_t box = slot / kDigestBoxSlots;
      out.low(box, d) = *least;
      out.high(box, d) = *most;
      if (kind == DigestKind::kMinMax) continue;
      const double middle = *least / 2 + *most / 2;
      double distance = 0;
      for (const double x : values) distance += std::abs(x - middle) / static_cast<double>(values.size());
      out.low(box, d) = middle - distance;
      out.high(box, d) = middle + distance;
      // Both are rounded to bf16, after 20 operations in float.
      out.error(box, d) = 1.01 * (0x1p-9 + 0x1p-18) * (std::abs(middle) + distance);
    }
  }
  return out;
}

Scored ScoreBox(const Query& q, const Boxes& boxes, int64_t slot) {
  const int64_t box = slot / kDigestBoxSlots, columns = boxes.low.columns;
  double score = 0, magnitude = 0, ties = 0;
  for (int64_t d = 0; d < columns; ++d) {
    const double x = q.q[At(d)], low = boxes.low(box, d), high = boxes.high(box, d);
    score += std::max(x * low, x * high);
    magnitude += 3 * std::abs(x) * std::max(std::abs(low), std::abs(high));
    ties += q.error[At(d)] * std::max(std::abs(low), std::abs(high)) + std::abs(x) * boxes.error(box, d);
  }
  return {score, ties + 1.01 * static_cast<double>(2 * columns + 8) * 0x1p-24 * magnitude};
}

// q . (zero + step * code). The backend takes q as a multiple of `unit`, and q times the steps of a run by a
// factor in bytes of at most 85: half of one is lost in each, and half in between, where 2^8 of q * step are
// one.
Scored ScoreQ2(const Query& q, const DecodedQ2& tile, int64_t slot) {
  const int64_t run = slot / kDigestRunSlots, columns = tile.keys.columns;
  double top = 0, largest = 0;
  for (const double x : q.q) top = std::max(top, std::abs(x));
  const double unit = top * (1 + 0x1p-7) / 32767;
  for (int64_t d = 0; d < columns; ++d) {
    if (unit > 0) largest = std::max(largest, std::abs(q.q[At(d)]) / unit * tile.steps(run, d));
  }
  const double byte = std::max(largest * 1.02 / 85, 256.0) + 2;  // of q * step in units
  double score = 0, magnitude = 0, ties = 0;
  for (int64_t d = 0; d < columns; ++d) {
    const double zero = tile.zero_scale[run] * tile.zeros(run, d);
    const double steps = tile.step_scale[run] * tile.steps(run, d) * tile.codes(slot, d);
    score += q.q[At(d)] * tile.keys(slot, d);
    magnitude += std::abs(q.q[At(d)]) * (std::abs(zero) + std::abs(steps));
    ties += (q.error[At(d)] + unit * 0.51) * (std::abs(zero) + std::abs(steps));
    ties += unit * tile.step_scale[run] * (128 + byte / 2 * 1.01) * tile.codes(slot, d);
  }
  return {score, ties + 0x1p-20 * magnitude};
}

}  // namespace

DecodedQ2 DecodeQ2(int64_t head_size, const uint8_t* digest) {
  DecodedQ2 out;
  std::memcpy(&out.slots, digest, 8);
  out.keys = out.codes = Matrix(64, head_size);
  out.zeros = out.steps = Matrix(2, head_size);
  for (int64_t run = 0; run < 2; ++run) {
    out.zero_scale[run] = Bf16At(digest + 8 + run * 2);
    out.step_scale[run] = Bf16At(digest + 12 + run * 2);
    const uint8_t* zeros = digest + 16 + run * 10 * head_size;
    const uint8_t *steps = zeros + head_size, *codes = steps + head_size;
    for (int64_t d = 0; d < head_size; ++d) {
      out.zeros(run, d) = static_cast<int8_t>(zeros[d]);
      out.steps(run, d) = steps[d];
      for (int64_t s = 0; s < 32; ++s) {
        const double code = codes[d / 4 * 32 + s % 8 * 4 + d % 4] >> s / 8 * 2 & 3;
        out.codes(run * 32 + s, d) = code;
        out.keys(run * 32 + s, d) =
            out.zero_scale[run] * out.zeros(run, d) + out.step_scale[run] * out.steps(run, d) * code;
      }
    }
  }
  return out;
}

DigestScores ScoreDigest(DigestKind kind, const Rope& rope, int64_t group, const DigestedTile& tile,
                         Rows<const float> q, std::span<const int64_t> positions) {
  DigestScores out{.scores = std::vector<double>(64, -kInfinity), .bounds = std::vector<double>(64, 0.0)};
  const double root = std::sqrt(static_cast<double>(rope.head_size));
  const DecodedQ2 decoded = kind == DigestKind::kQ2 ? DecodeQ2(rope.head_size, tile.digest) : DecodedQ2{};
  const Boxes boxes = BoxesOf(kind, tile.keys);
  for (int64_t t = 0; t < q.rows; ++t) {
    for (int64_t g = 0; g < group; ++g) {
      const Query query = QueryOf(rope, positions[At(t)], q.row(t) + g * rope.head_size);
      if (!query.finite) continue;
      for (int64_t slot = 0; slot < tile.count; ++slot) {
        if (!IsFinite(tile.keys, slot)) continue;
        const Scored scored = kind == DigestKind::kQ2      ? ScoreQ2(query, decoded, slot)
                              : kind == DigestKind::kExact ? ScoreExact(query, tile.keys, slot)
                                                           : ScoreBox(query, boxes, slot);
        out.scores[At(slot)] = std::max(out.scores[At(slot)], scored.score / root);
        out.bounds[At(slot)] =
            std::max(out.bounds[At(slot)], scored.bound / root + 0x1p-22 * std::abs(scored.score));
      }
    }
  }
  return out;
}

}  // namespace palimpsest::reference
