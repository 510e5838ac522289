#include "tests/testing/reference_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/dequantize.h"
#include "kernels/tensor.h"
#include "proto/base/status.h"

namespace palimpsest::testing {
namespace {

constexpr size_t kTile = 64, kTilesOfSplit = 8;

std::vector<double> ReadTensor(const GgufFile& file, const std::string& name) {
  const auto tensor = file.Tensor(name);
  PALIMPSEST_CHECK(tensor.ok(), "{}", Message(tensor.status()));
  std::vector<float> values(static_cast<size_t>((*tensor)->elements()));
  const absl::Status status = Dequantize((*tensor)->type, (*tensor)->bytes, values);
  PALIMPSEST_CHECK(status.ok(), "{}", Message(status));
  return {values.begin(), values.end()};
}

double Dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Running softmax state over keys seen so far.
struct Softmax {
  double max = -INFINITY, sum = 0;
  std::vector<double> out;
  void Rescale(double to) {
    const double factor = std::exp2(max - to);
    sum *= factor;
    for (double& o : out) o *= factor;
    max = to;
  }
};

void Merge(Softmax& a, Softmax b) {
  const double max = std::max(a.max, b.max);
  a.Rescale(max);
  b.Rescale(max);
  a.sum += b.sum;
  for (size_t i = 0; i < a.out.size(); ++i) a.out[i] += b.out[i];
}

std::vector<double> Slice(const std::vector<double>& x, int64_t first, int64_t count) {
  return {x.begin() + first, x.begin() + first + count};
}

}  // namespace

ReferenceModel::ReferenceModel(const GgufFile& file, Rounding rounding) : rounding_(rounding) {
  const auto number = [&](const char* key) { return file.GetInt(key).value(); };
  heads_ = number("llama.attention.head_count");
  kv_heads_ = number("llama.attention.head_count_kv");
  head_size_ = number("llama.embedding_length") / heads_;
  epsilon_ = file.GetFloat("llama.attention.layer_norm_rms_epsilon").value();
  theta_ = file.GetFloat("llama.rope.freq_base").value();
  embedding_ = ReadMatrix(file, "token_embd.weight");
  output_ = file.Tensor("output.weight").ok() ? ReadMatrix(file, "output.weight") : embedding_;
  output_norm_ = ReadTensor(file, "output_norm.weight");
  for (int64_t i = 0; i < number("llama.block_count"); ++i) {
    const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", i, part); };
    Layer layer;
    layer.attention_norm = ReadTensor(file, name("attn_norm"));
    layer.ffn_norm = ReadTensor(file, name("ffn_norm"));
    layer.q = ReadMatrix(file, name("attn_q"));
    layer.k = ReadMatrix(file, name("attn_k"));
    layer.v = ReadMatrix(file, name("attn_v"));
    layer.output = ReadMatrix(file, name("attn_output"));
    layer.gate = ReadMatrix(file, name("ffn_gate"));
    layer.up = ReadMatrix(file, name("ffn_up"));
    layer.down = ReadMatrix(file, name("ffn_down"));
    layers_.push_back(std::move(layer));
  }
}

double ReferenceModel::Round(double x) const {
  return rounding_ == Rounding::kNone ? x : Bf16ToFloat(FloatToBf16(static_cast<float>(x)));
}

ReferenceModel::Matrix ReferenceModel::ReadMatrix(const GgufFile& file, const std::string& name) const {
  const GgufTensor* tensor = file.Tensor(name).value();
  Matrix matrix{tensor->shape[1], tensor->shape[0], ReadTensor(file, name)};
  for (double& value : matrix.values) value = Round(value);
  return matrix;
}

std::vector<double> ReferenceModel::Multiply(const Matrix& w, const std::vector<double>& x) const {
  std::vector<double> out;
  for (int64_t r = 0; r < w.rows; ++r) {
    out.push_back(
        Dot(std::span(w.values).subspan(static_cast<size_t>(r * w.columns), x.size()), std::span(x)));
  }
  return out;
}

std::vector<double> ReferenceModel::Norm(const std::vector<double>& x,
                                         const std::vector<double>& weight) const {
  const double scale = 1 / std::sqrt(Dot(x, x) / static_cast<double>(x.size()) + epsilon_);
  std::vector<double> out;
  for (size_t i = 0; i < x.size(); ++i) out.push_back(Round(x[i] * scale * weight[i]));
  return out;
}

// Adjacent pairs (2i, 2i + 1) turn by position * theta^(-2i / head_size).
std::vector<double> ReferenceModel::Rotated(std::vector<double> head, int64_t position) const {
  for (size_t i = 0; i + 1 < head.size(); i += 2) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta_, -static_cast<double>(i) / static_cast<double>(head_size_));
    const double a = head[i], b = head[i + 1];
    head[i] = Round(a * std::cos(angle) - b * std::sin(angle));
    head[i + 1] = Round(a * std::sin(angle) + b * std::cos(angle));
  }
  return head;
}

// One query head over the keys before it (all of `keys`). Without rounding the tiles make no difference.
std::vector<double> ReferenceModel::Attend(const std::vector<double>& q, const Vectors& keys,
                                           const Vectors& values, std::span<const size_t> tile_ends) const {
  const double scale = std::log2(std::exp(1.0)) / std::sqrt(static_cast<double>(head_size_));
  std::vector<Softmax> splits;
  size_t first = 0;
  for (size_t tile = 0; first < keys.size(); ++tile) {
    if (tile % kTilesOfSplit == 0) splits.push_back({.out = std::vector<double>(q.size(), 0.0)});
    Softmax& state = splits.back();
    const size_t last = std::min(tile_ends[tile], keys.size());
    std::vector<double> scores;
    for (size_t i = first; i < last; ++i) scores.push_back(Dot(q, keys[i]) * scale);
    state.Rescale(std::max(state.max, *std::max_element(scores.begin(), scores.end())));
    for (size_t i = first; i < last; ++i) {
      const double weight = std::exp2(scores[i - first] - state.max);
      state.sum += weight;
      for (size_t d = 0; d < q.size(); ++d) state.out[d] += Round(weight) * values[i][d];
    }
    first = last;
  }
  for (size_t i = 1; i < splits.size(); ++i) Merge(splits[0], std::move(splits[i]));
  for (double& o : splits[0].out) o = Round(o / splits[0].sum);
  return splits[0].out;
}

void ReferenceModel::RunLayer(const Layer& layer, std::span<const size_t> tile_ends, Vectors& x) const {
  std::vector<Vectors> keys(static_cast<size_t>(kv_heads_)), values(keys.size());
  for (size_t t = 0; t < x.size(); ++t) {
    const int64_t position = static_cast<int64_t>(t);
    const std::vector<double> in = Norm(x[t], layer.attention_norm);
    const std::vector<double> q = Multiply(layer.q, in), k = Multiply(layer.k, in), v = Multiply(layer.v, in);
    for (int64_t h = 0; h < kv_heads_; ++h) {
      std::vector<double> key = Slice(k, h * head_size_, head_size_),
                          value = Slice(v, h * head_size_, head_size_);
      for (double& number : key) number = Round(number);
      for (double& number : value) number = Round(number);
      keys[static_cast<size_t>(h)].push_back(Rotated(std::move(key), position));
      values[static_cast<size_t>(h)].push_back(std::move(value));
    }
    std::vector<double> attended;
    for (int64_t h = 0; h < heads_; ++h) {
      const size_t kv = static_cast<size_t>(h / (heads_ / kv_heads_));
      const std::vector<double> head =
          Attend(Rotated(Slice(q, h * head_size_, head_size_), position), keys[kv], values[kv], tile_ends);
      attended.insert(attended.end(), head.begin(), head.end());
    }
    const std::vector<double> out = Multiply(layer.output, attended);
    for (size_t i = 0; i < out.size(); ++i) x[t][i] += out[i];
  }
  for (std::vector<double>& row : x) FeedForward(layer, row);
}

void ReferenceModel::FeedForward(const Layer& layer, std::vector<double>& row) const {
  const std::vector<double> in = Norm(row, layer.ffn_norm);
  const std::vector<double> gate = Multiply(layer.gate, in), up = Multiply(layer.up, in);
  std::vector<double> gated;
  for (size_t i = 0; i < gate.size(); ++i) gated.push_back(Round(gate[i] / (1 + std::exp(-gate[i])) * up[i]));
  const std::vector<double> out = Multiply(layer.down, gated);
  for (size_t i = 0; i < out.size(); ++i) row[i] += out[i];
}

void ReferenceModel::Move(Held* held, int64_t position) const {
  if (held->position == position && !held->rotated.empty()) return;
  held->position = position;
  held->rotated = Rotated(held->key, position);
}

std::vector<double> ReferenceModel::Attention(std::span<const double> q, const std::vector<Held>& held,
                                              size_t count) const {
  std::vector<double> weights(count);
  double max = -INFINITY, sum = 0;
  for (size_t i = 0; i < count; ++i) {
    weights[i] = Dot(q, held[i].rotated) / std::sqrt(static_cast<double>(head_size_));
    max = std::max(max, weights[i]);
  }
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (double& weight : weights) weight /= sum;
  return weights;
}

ReferenceModel::Seen ReferenceModel::Run(int32_t id, int32_t token, int64_t position, Cache* cache) const {
  Seen seen;
  std::vector<double> x = Slice(embedding_.values, id * embedding_.columns, embedding_.columns);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const std::vector<double> in = Norm(x, layer.attention_norm);
    const std::vector<double> q = Multiply(layer.q, in), k = Multiply(layer.k, in), v = Multiply(layer.v, in);
    for (int64_t h = 0; h < kv_heads_; ++h) {
      Held held{
          token, position, Slice(k, h * head_size_, head_size_), Slice(v, h * head_size_, head_size_), {}};
      for (double& number : held.key) number = Round(number);
      for (double& number : held.value) number = Round(number);
      Move(&held, position);
      (*cache)[l * static_cast<size_t>(kv_heads_) + static_cast<size_t>(h)].push_back(std::move(held));
    }
    std::vector<double> attended, queries;
    for (int64_t h = 0; h < heads_; ++h) {
      const auto& held =
          (*cache)[l * static_cast<size_t>(kv_heads_) + static_cast<size_t>(h / (heads_ / kv_heads_))];
      const std::vector<double> turned = Rotated(Slice(q, h * head_size_, head_size_), position);
      const std::vector<double> weights = Attention(turned, held, held.size());
      std::vector<double> out(static_cast<size_t>(head_size_), 0.0);
      for (size_t i = 0; i < held.size(); ++i) {
        for (size_t d = 0; d < out.size(); ++d) out[d] += weights[i] * held[i].value[d];
      }
      for (const double o : out) attended.push_back(Round(o));
      queries.insert(queries.end(), turned.begin(), turned.end());
    }
    seen.queries.push_back(std::move(queries));
    const std::vector<double> out = Multiply(layer.output, attended);
    for (size_t i = 0; i < out.size(); ++i) x[i] += out[i];
    FeedForward(layer, x);
  }
  seen.logits = Multiply(output_, Norm(x, output_norm_));
  return seen;
}

std::vector<double> ReferenceModel::Logits(std::span<const std::vector<int32_t>> segments) const {
  Vectors x;
  std::vector<size_t> tile_ends;
  for (const std::vector<int32_t>& segment : segments) {
    for (size_t first = 0; first < segment.size(); first += kTile) {
      tile_ends.push_back(x.size() + std::min(segment.size(), first + kTile));
    }
    for (const int32_t id : segment) {
      x.push_back(Slice(embedding_.values, id * embedding_.columns, embedding_.columns));
    }
  }
  for (const Layer& layer : layers_) RunLayer(layer, tile_ends, x);
  return Multiply(output_, Norm(x.back(), output_norm_));
}

}  // namespace palimpsest::testing
