#include "worker/model/weights.h"

#include <atomic>
#include <set>
#include <string>

#include "kernels/dequantize.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// A matrix of the file: rows of outputs, each row a whole number of quantisation blocks.
struct Source {
  const GgufTensor* tensor = nullptr;
  int64_t row_bytes = 0;
  absl::Status FillRow(int64_t row, std::span<float> out) const {
    return Dequantize(
        tensor->type,
        tensor->bytes.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(row_bytes)), out);
  }
};

class Loader {
 public:
  Loader(const GgufFile& file, const ModelConfig& config, Backend& backend)
      : file_(file), config_(config), backend_(backend) {}

  absl::StatusOr<Source> Matrix(const std::string& name, int64_t rows, int64_t columns) {
    used_.insert(name);
    PALIMPSEST_ASSIGN_OR_RETURN(const GgufTensor* tensor, file_.Tensor(name));
    if (tensor->shape != std::vector<int64_t>{columns, rows}) {
      return InvalidArgument("{}: {} has shape ({}), expected ({}, {})", file_.path(), name,
                             fmt::join(tensor->shape, ", "), columns, rows);
    }
    const auto format = QuantFormatOf(tensor->type);
    if (!format.ok()) return InFile(name, format.status());
    if (columns % format->block_elements != 0) {
      return InvalidArgument("{}: {} has rows of {}, not whole blocks of {}", file_.path(), name, columns,
                             format->block_elements);
    }
    return Source{tensor, columns / format->block_elements * format->block_bytes};
  }

  absl::StatusOr<AlignedBuffer<float>> Vector(const std::string& name, int64_t size) {
    used_.insert(name);
    PALIMPSEST_ASSIGN_OR_RETURN(const GgufTensor* tensor, file_.Tensor(name));
    if (tensor->elements() != size) {
      return InvalidArgument("{}: {} has {} numbers, expected {}", file_.path(), name, tensor->elements(),
                             size);
    }
    AlignedBuffer<float> values(size);
    const absl::Status status =
        Dequantize(tensor->type, tensor->bytes, std::span<float>(values.data(), static_cast<size_t>(size)));
    if (!status.ok()) return InFile(name, status);
    return values;
  }

  // Packs `n` outputs of `k` inputs; map(r) says which row of which source is output r.
  template <typename Map>
  absl::StatusOr<PackedWeights> Pack(int64_t n, int64_t k, WeightFormat format, Map map) {
    std::atomic<bool> failed{false};
    PackedWeights packed = backend_.Pack(n, k, format, [&](int64_t row, float* out) {
      const auto [source, source_row] = map(row);
      if (!source->FillRow(source_row, std::span<float>(out, static_cast<size_t>(k))).ok()) failed = true;
    });
    if (failed) return InvalidArgument("{}: a weight matrix could not be expanded", file_.path());
    return packed;
  }

  absl::StatusOr<LayerWeights> Layer(int64_t layer, WeightFormat format);
  absl::Status CheckAllUsed() const;
  void Ignore(const std::string& name) { used_.insert(name); }

 private:
  absl::Status InFile(const std::string& name, const absl::Status& status) const {
    return Error(status.code(), "{}: {}: {}", file_.path(), name, Message(status));
  }
  const GgufFile& file_;
  const ModelConfig& config_;
  Backend& backend_;
  std::set<std::string, std::less<>> used_;
};

absl::StatusOr<LayerWeights> Loader::Layer(int64_t layer, WeightFormat format) {
  const ModelConfig& c = config_;
  const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", layer, part); };
  LayerWeights w;
  PALIMPSEST_ASSIGN_OR_RETURN(w.attention_norm, Vector(name("attn_norm"), c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(w.ffn_norm, Vector(name("ffn_norm"), c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source q, Matrix(name("attn_q"), c.q_columns(), c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source k, Matrix(name("attn_k"), c.kv_columns(), c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source v, Matrix(name("attn_v"), c.kv_columns(), c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source o, Matrix(name("attn_output"), c.hidden, c.q_columns()));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source gate, Matrix(name("ffn_gate"), c.ffn, c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source up, Matrix(name("ffn_up"), c.ffn, c.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(const Source down, Matrix(name("ffn_down"), c.hidden, c.ffn));

  using Place = std::pair<const Source*, int64_t>;
  PALIMPSEST_ASSIGN_OR_RETURN(w.qkv,
                              Pack(c.q_columns() + 2 * c.kv_columns(), c.hidden, format, [&](int64_t r) {
                                if (r < c.q_columns()) return Place(&q, r);
                                r -= c.q_columns();
                                return r < c.kv_columns() ? Place(&k, r) : Place(&v, r - c.kv_columns());
                              }));
  PALIMPSEST_ASSIGN_OR_RETURN(w.attention_output,
                              Pack(c.hidden, c.q_columns(), format, [&](int64_t r) { return Place(&o, r); }));
  PALIMPSEST_ASSIGN_OR_RETURN(w.gate_up, Pack(2 * c.ffn, c.hidden, format, [&](int64_t r) {
                                return Place(r / 16 % 2 == 0 ? &gate : &up, r / 32 * 16 + r % 16);
                              }));
  PALIMPSEST_ASSIGN_OR_RETURN(w.down,
                              Pack(c.hidden, c.ffn, format, [&](int64_t r) { return Place(&down, r); }));
  return w;
}

absl::Status Loader::CheckAllUsed() const {
  for (const GgufTensor& tensor : file_.tensors()) {
    if (used_.contains(tensor.name)) continue;
    return Unimplemented(
        "{}: tensor {} is not part of a plain llama model; leaving it out would give wrong answers",
        file_.path(), tensor.name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const GgufFile& file, const ModelConfig& config, WeightFormat format,
                                    Backend& backend) {
  if (format == WeightFormat::kInt8 &&
      (config.hidden % 64 != 0 || config.ffn % 64 != 0 || config.q_columns() % 64 != 0)) {
    return Unimplemented(
        "{}: int8 weights need widths that are multiples of 64, here hidden {}, feed-forward {}, heads {}; "
        "use device.numerics bf16",
        file.path(), config.hidden, config.ffn, config.q_columns());
  }
  Loader loader(file, config, backend);
  Weights weights;
  using Place = std::pair<const Source*, int64_t>;
  PALIMPSEST_ASSIGN_OR_RETURN(const Source embedding,
                              loader.Matrix("token_embd.weight", config.vocabulary, config.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(weights.output_norm, loader.Vector("output_norm.weight", config.hidden));
  PALIMPSEST_ASSIGN_OR_RETURN(weights.embedding,
                              loader.Pack(config.vocabulary, config.hidden, WeightFormat::kBf16,
                                          [&](int64_t r) { return Place(&embedding, r); }));
  if (!config.tied_embeddings || format != WeightFormat::kBf16) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Source output,
                                loader.Matrix(config.tied_embeddings ? "token_embd.weight" : "output.weight",
                                              config.vocabulary, config.hidden));
    PALIMPSEST_ASSIGN_OR_RETURN(weights.output, loader.Pack(config.vocabulary, config.hidden, format,
                                                            [&](int64_t r) { return Place(&output, r); }));
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    PALIMPSEST_ASSIGN_OR_RETURN(LayerWeights loaded, loader.Layer(layer, format));
    weights.layers.push_back(std::move(loaded));
    file.ReleasePages();  // so that the file never stands in memory beside its packed form
  }
  loader.Ignore("rope_freqs.weight");  // read with the configuration
  PALIMPSEST_RETURN_IF_ERROR(loader.CheckAllUsed());
  return weights;
}

int64_t Weights::decode_bytes() const {
  int64_t bytes = lm_head().bytes();
  for (const LayerWeights& layer : layers) {
    bytes += layer.qkv.bytes() + layer.attention_output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
  }
  return bytes;
}

int64_t Weights::bytes() const { return decode_bytes() + (output.n == 0 ? 0 : embedding.bytes()); }

}  // namespace palimpsest
