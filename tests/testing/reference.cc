#include "tests/testing/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace palimpsest::reference {
namespace {

size_t At(int64_t i) { return static_cast<size_t>(i); }

template <typename F>
Matrix Each(const Matrix& x, F f) {
  Matrix out(x.rows, x.columns);
  for (size_t i = 0; i < x.data.size(); ++i) out.data[i] = f(x.data[i]);
  return out;
}

}  // namespace

double RoundToBf16(double x) {
  if (!std::isfinite(x)) return x;
  if (std::abs(x) < 0x1p-126) return std::copysign(0.0, x);
  int exponent;
  const double fraction = std::frexp(x, &exponent);  // in [1/2, 1)
  const double rounded = std::ldexp(std::nearbyint(fraction * 256.0), exponent - 8);
  return std::abs(rounded) < 0x1p128 ? rounded : std::copysign(std::numeric_limits<double>::infinity(), x);
}

Matrix RoundToBf16(const Matrix& x) {
  return Each(x, [](double v) { return RoundToBf16(v); });
}
Matrix Abs(const Matrix& x) {
  return Each(x, [](double v) { return std::abs(v); });
}

Matrix MatMul(const Matrix& a, const Matrix& w) {
  Matrix out(a.rows, w.rows);
  for (int64_t t = 0; t < a.rows; ++t) {
    for (int64_t j = 0; j < w.rows; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < a.columns; ++i) sum += a(t, i) * w(j, i);
      out(t, j) = sum;
    }
  }
  return out;
}

double Silu(double x) { return x / (1.0 + std::exp(-x)); }

Matrix SiluGate(const Matrix& product) {
  Matrix out(product.rows, product.columns / 2);
  for (int64_t t = 0; t < out.rows; ++t) {
    for (int64_t j = 0; j < out.columns; ++j) {
      const int64_t gate = j / 16 * 32 + j % 16;
      out(t, j) = Silu(product(t, gate)) * product(t, gate + 16);
    }
  }
  return out;
}

Matrix RmsNorm(const Matrix& x, std::span<const float> weight, double epsilon) {
  Matrix out(x.rows, x.columns);
  for (int64_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (int64_t i = 0; i < x.columns; ++i) squares += x(t, i) * x(t, i);
    const double root = std::sqrt(squares / static_cast<double>(x.columns) + epsilon);
    for (int64_t i = 0; i < x.columns; ++i) out(t, i) = x(t, i) / root * static_cast<double>(weight[At(i)]);
  }
  return out;
}

Matrix Embed(std::span<const int32_t> ids, const Matrix& w) {
  Matrix out(static_cast<int64_t>(ids.size()), w.columns);
  for (int64_t t = 0; t < out.rows; ++t) {
    for (int64_t i = 0; i < w.columns; ++i) out(t, i) = w(ids[At(t)], i);
  }
  return out;
}

std::vector<double> Rotate(const Rope& rope, int64_t offset, std::span<const double> x) {
  std::vector<double> out(x.begin(), x.end());
  for (int64_t i = 0; i < rope.rope_size / 2; ++i) {
    const double factor = At(i) < rope.factors.size() ? rope.factors[At(i)] : 1.0;
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rope.rope_size);
    const double angle = static_cast<double>(offset) * (std::pow(rope.theta, exponent) / factor);
    const double c = std::cos(angle), s = std::sin(angle);
    out[At(2 * i)] = x[At(2 * i)] * c - x[At(2 * i + 1)] * s;
    out[At(2 * i + 1)] = x[At(2 * i)] * s + x[At(2 * i + 1)] * c;
  }
  return out;
}

int64_t KeyIndex(int64_t slot, int64_t i) { return i / 2 * 128 + slot * 2 + i % 2; }

int64_t ValueIndex(int64_t head_size, int64_t slot, int64_t i) {
  const int64_t keys = head_size * 64;
  return keys + i / 64 * 4096 + slot / 2 * 128 + i % 64 * 2 + slot % 2;
}

int64_t RestIndex(int64_t rest_rows, int64_t head_size, int64_t kv_head, bool value, int64_t slot,
                  int64_t i) {
  return ((kv_head * 2 + (value ? 1 : 0)) * rest_rows + slot) * head_size + i;
}

double CodedElement(const CodedRun* tile, int64_t index) {
  const CodedRun& run = tile[index / 64];
  const int64_t element = index % 64, pair = element / 2, side = element % 2;
  const int code = run.codes[pair % 16] >> (pair / 16 * 4 + side * 2) & 3;
  const auto number = [](Bf16 x) { return static_cast<double>(Bf16ToFloat(x)); };
  return RoundToBf16(number(run.low[side]) + code * number(run.step[side]));
}

StoredToken StoreToken(const Rope& rope, int64_t offset, std::span<const float> k, std::span<const float> v) {
  StoredToken token;
  for (const float x : k) token.rest_key.push_back(RoundToBf16(static_cast<double>(x)));
  for (const float x : v) token.value.push_back(RoundToBf16(static_cast<double>(x)));
  token.tile_key = Rotate(rope, offset, token.rest_key);
  return token;
}

namespace {

struct Slot {
  int64_t index;                   // tile * 64 + slot, by place in the list of tiles
  int64_t position, base;          // where it stands in the sequence
  std::vector<double> key, value;  // (D)
};

// Those that hold a token and were not dropped.
std::vector<Slot> SlotsOf(const TilePool& pool, int64_t head_size, std::span<const int32_t> tiles,
                          std::span<const int32_t> shifts) {
  std::vector<Slot> slots;
  for (size_t i = 0; i < tiles.size(); ++i) {
    const int32_t tile = tiles[i];
    const int64_t shift = shifts.empty() ? 0 : shifts[i];
    const Bf16* data = pool.data + tile * pool.tile_elements;
    for (int64_t s = pool.starts[tile]; s < pool.counts[tile]; ++s) {
      Slot slot;
      slot.index = static_cast<int64_t>(i) * kTileSlots + s;
      slot.position = pool.positions[tile * kTileSlots + s] + shift;
      slot.base = pool.bases[tile] + shift;
      for (int64_t e = 0; e < head_size; ++e) {
        slot.key.push_back(static_cast<double>(Bf16ToFloat(data[KeyIndex(s, e)])));
        slot.value.push_back(static_cast<double>(Bf16ToFloat(data[ValueIndex(head_size, s, e)])));
      }
      slots.push_back(std::move(slot));
    }
  }
  return slots;
}

// Those of tiles in 2 bits: of base 0, seen by every row.
std::vector<Slot> CodedSlotsOf(const TilePool& pool, int64_t head_size, std::span<const CodedTile> tiles) {
  std::vector<Slot> slots;
  for (const CodedTile tile : tiles) {
    for (int64_t s = 0; s < kTileSlots; ++s) {
      Slot slot{.index = -1, .position = 0, .base = 0, .key = {}, .value = {}};
      for (int64_t e = 0; e < head_size; ++e) {
        slot.key.push_back(CodedElement(pool.coded(tile), KeyIndex(s, e)));
        slot.value.push_back(CodedElement(pool.coded(tile), ValueIndex(head_size, s, e)));
      }
      slots.push_back(std::move(slot));
    }
  }
  return slots;
}

// A query for one base. error[i]: how far the rounding of q[i] can be off when the rotation is done in float.
struct Query {
  std::vector<double> q, error;
};

// Rotation in float: cos and sin are off by 2^-24 of themselves, one product and one sum are rounded: less
// than 4 * 2^-24 (|x| + |its partner|).
Query RotatedQuery(const Rope& rope, int64_t offset, std::span<const double> x) {
  Query query{.q = Rotate(rope, offset, x), .error = {}};
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = query.q[i], slack = 0x1p-22 * (std::abs(x[i]) + std::abs(x[i ^ 1]));
    query.q[i] = RoundToBf16(exact);
    query.error.push_back(std::max(std::abs(RoundToBf16(exact + slack) - query.q[i]),
                                   std::abs(RoundToBf16(exact - slack) - query.q[i])));
  }
  return query;
}

// Softmax of one query over the slots that it sees.
struct Weights {
  std::vector<std::pair<const Slot*, double>> of;
  double score_magnitude = 0, score_ties = 0;
};

Weights WeightsOf(const Rope& rope, const std::vector<Slot>& slots, const float* q, int64_t d,
                  int64_t position) {
  const double root = std::sqrt(static_cast<double>(d));
  const std::vector<double> x(q, q + d);
  Weights weights;
  Query query;
  int64_t query_base = std::numeric_limits<int64_t>::min();
  double top = -std::numeric_limits<double>::infinity();
  for (const Slot& slot : slots) {
    if (slot.position > position) continue;
    if (slot.base != query_base) query = RotatedQuery(rope, position - slot.base, x);
    query_base = slot.base;
    double score = 0, magnitude = 0, ties = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      score += query.q[i] * slot.key[i];
      magnitude += std::abs(query.q[i] * slot.key[i]);
      ties += query.error[i] * std::abs(slot.key[i]);
    }
    weights.of.emplace_back(&slot, score / root);
    top = std::max(top, score / root);
    weights.score_magnitude = std::max(weights.score_magnitude, magnitude / root);
    weights.score_ties = std::max(weights.score_ties, ties / root);
  }
  double sum = 0;
  for (const auto& [slot, score] : weights.of) sum += std::exp(score - top);
  for (auto& [slot, score] : weights.of) score = std::exp(score - top) / sum;
  return weights;
}

void AttendOneHead(const AttentionArgs& args, const Rope& rope, const std::vector<Slot>& slots, int64_t row,
                   int64_t position, int64_t head, AttentionResult* result) {
  const int64_t d = args.head_size;
  const Weights weights = WeightsOf(rope, slots, args.q.row(row) + head * d, d, position);
  result->score_magnitude(row, head) = weights.score_magnitude;
  result->score_ties(row, head) = weights.score_ties;
  for (const auto& [slot, p] : weights.of) {
    for (int64_t i = 0; i < d; ++i) {
      result->out(row, head * d + i) += p * slot->value[At(i)];
      result->magnitude(row, head * d + i) += p * std::abs(slot->value[At(i)]);
    }
  }
}

}  // namespace

AttentionResult Attention(const AttentionArgs& args, const Rope& rope) {
  const int64_t rows = args.q.rows, width = args.heads * args.head_size;
  AttentionResult result{.out = Matrix(rows, width),
                         .magnitude = Matrix(rows, width),
                         .score_magnitude = Matrix(rows, args.heads),
                         .score_ties = Matrix(rows, args.heads)};
  const int64_t group = args.heads / args.kv_heads;
  for (const AttentionSequence& sequence : args.sequences) {
    for (int64_t head = 0; head < args.heads; ++head) {
      std::vector<Slot> slots =
          SlotsOf(args.pool, args.head_size, sequence.tiles[head / group],
                  sequence.shifts == nullptr ? std::span<const int32_t>() : sequence.shifts[head / group]);
      if (sequence.coded != nullptr) {
        std::vector<Slot> coded = CodedSlotsOf(args.pool, args.head_size, sequence.coded[head / group]);
        slots.insert(slots.begin(), coded.begin(), coded.end());
      }
      for (int64_t t = 0; t < sequence.rows; ++t) {
        AttendOneHead(args, rope, slots, sequence.first_row + t, sequence.positions[t], head, &result);
      }
    }
  }
  return result;
}

ScoreResult ScoreKeys(const ScoreKeysArgs& args, const ScoreHead& head, const Rope& rope) {
  const std::vector<Slot> slots = SlotsOf(args.pool, args.head_size, head.tiles, {});
  ScoreResult result{.out = Matrix(args.group, static_cast<int64_t>(head.tiles.size()) * kTileSlots)};
  for (int64_t g = 0; g < args.group; ++g) {
    for (size_t t = 0; t < args.positions.size(); ++t) {
      const float* q = head.q.row(static_cast<int64_t>(t)) + g * args.head_size;
      const Weights weights = WeightsOf(rope, slots, q, args.head_size, args.positions[t]);
      result.score_magnitude = std::max(result.score_magnitude, weights.score_magnitude);
      result.score_ties = std::max(result.score_ties, weights.score_ties);
      for (const auto& [slot, p] : weights.of) {
        double& out = result.out(g, slot->index);
        out = args.reduce == RowReduce::kMax ? std::max(out, p) : out + p;
      }
    }
  }
  return result;
}

double TokenLoss(std::span<const float> logits, int64_t target) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum) - static_cast<double>(logits[At(target)]);
}

}  // namespace palimpsest::reference
