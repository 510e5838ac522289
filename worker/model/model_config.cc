#include "worker/model/model_config.h"

#include <cmath>

#include "kernels/dequantize.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::StatusOr<int64_t> Dimension(const GgufFile& file, const std::string& key, int64_t low, int64_t high) {
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  if (value < low || value > high) {
    return InvalidArgument("{}: {} is {}, expected {} to {}", file.path(), key, value, low, high);
  }
  return value;
}

absl::Status Architecture(const GgufFile& file) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view architecture, file.GetString("general.architecture"));
  if (architecture != "llama") {
    return Unimplemented("{}: architecture {} is not supported; use a model of the llama architecture",
                         file.path(), architecture);
  }
  if (file.Has("llama.expert_count")) {
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t experts, file.GetInt("llama.expert_count"));
    if (experts > 0) return Unimplemented("{}: mixture of {} experts is not supported", file.path(), experts);
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, ModelConfig& config) {
  config.rope_theta = 10000;
  if (file.Has("llama.rope.freq_base")) {
    PALIMPSEST_ASSIGN_OR_RETURN(config.rope_theta, file.GetFloat("llama.rope.freq_base"));
  }
  if (!(config.rope_theta > 0) || !std::isfinite(config.rope_theta)) {
    return InvalidArgument("{}: llama.rope.freq_base is {}, expected a positive number", file.path(),
                           config.rope_theta);
  }
  config.rope_size = config.head_size;
  if (file.Has("llama.rope.dimension_count")) {
    PALIMPSEST_ASSIGN_OR_RETURN(config.rope_size,
                                Dimension(file, "llama.rope.dimension_count", 2, config.head_size));
  }
  if (config.rope_size % 2 != 0) {
    return InvalidArgument("{}: llama.rope.dimension_count {} is odd", file.path(), config.rope_size);
  }
  const size_t pairs = static_cast<size_t>(config.rope_size / 2);
  if (file.Has("llama.rope.scaling.type")) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view type, file.GetString("llama.rope.scaling.type"));
    if (type == "linear") {
      PALIMPSEST_ASSIGN_OR_RETURN(const double factor, file.GetFloat("llama.rope.scaling.factor"));
      if (!(factor > 0)) return InvalidArgument("{}: llama.rope.scaling.factor is {}", file.path(), factor);
      config.rope_factors.assign(pairs, factor);
      config.rope_text = fmt::format("linear:{}", factor);
    } else if (type != "none") {
      return Unimplemented(
          "{}: rope scaling {} is not supported; supported are none and linear, and factors stored as "
          "the tensor rope_freqs.weight",
          file.path(), type);
    }
  }
  const auto factors = file.Tensor("rope_freqs.weight");
  if (!factors.ok()) return absl::OkStatus();
  std::vector<float> values(static_cast<size_t>((*factors)->elements()));
  if (values.size() != pairs) {
    return InvalidArgument("{}: rope_freqs.weight has {} numbers, expected {}", file.path(), values.size(),
                           pairs);
  }
  PALIMPSEST_RETURN_IF_ERROR(Dequantize((*factors)->type, (*factors)->bytes, values));
  config.rope_factors.resize(pairs, 1.0);
  for (size_t i = 0; i < pairs; ++i) {
    if (!(values[i] > 0))
      return InvalidArgument("{}: rope_freqs.weight[{}] is {}", file.path(), i, values[i]);
    config.rope_factors[i] *= values[i];
  }
  config.rope_text += "factors";
  for (const double factor : config.rope_factors) config.rope_text += fmt::format(":{:a}", factor);
  return absl::OkStatus();
}

// What the kernels need; every public Llama model meets it.
absl::Status CheckShapes(const GgufFile& file, const ModelConfig& c) {
  if (c.heads % c.kv_heads != 0) {
    return InvalidArgument("{}: {} query heads are not a multiple of {} KV heads", file.path(), c.heads,
                           c.kv_heads);
  }
  if (c.head_size % 16 != 0 || c.head_size > 256) {
    return Unimplemented("{}: head size {} is not supported; supported are multiples of 16 up to 256",
                         file.path(), c.head_size);
  }
  if (c.hidden % 32 != 0 || c.ffn % 32 != 0) {
    return Unimplemented("{}: hidden width {} and feed-forward width {} must be multiples of 32", file.path(),
                         c.hidden, c.ffn);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  PALIMPSEST_RETURN_IF_ERROR(Architecture(file));
  ModelConfig c;
  if (const auto name = file.GetString("general.name"); name.ok()) c.name = std::string(*name);
  PALIMPSEST_ASSIGN_OR_RETURN(c.layers, Dimension(file, "llama.block_count", 1, 1024));
  PALIMPSEST_ASSIGN_OR_RETURN(c.hidden, Dimension(file, "llama.embedding_length", 32, 1 << 17));
  PALIMPSEST_ASSIGN_OR_RETURN(c.ffn, Dimension(file, "llama.feed_forward_length", 32, 1 << 20));
  PALIMPSEST_ASSIGN_OR_RETURN(c.heads, Dimension(file, "llama.attention.head_count", 1, 1024));
  c.kv_heads = c.heads;
  if (file.Has("llama.attention.head_count_kv")) {
    PALIMPSEST_ASSIGN_OR_RETURN(c.kv_heads, Dimension(file, "llama.attention.head_count_kv", 1, c.heads));
  }
  c.head_size = c.hidden / c.heads;
  if (file.Has("llama.attention.key_length")) {
    PALIMPSEST_ASSIGN_OR_RETURN(c.head_size, Dimension(file, "llama.attention.key_length", 16, 256));
  } else if (c.hidden % c.heads != 0) {
    return InvalidArgument("{}: hidden width {} is not a multiple of {} heads", file.path(), c.hidden,
                           c.heads);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(c.context, Dimension(file, "llama.context_length", 1, int64_t{1} << 26));
  PALIMPSEST_ASSIGN_OR_RETURN(c.rms_epsilon, file.GetFloat("llama.attention.layer_norm_rms_epsilon"));
  PALIMPSEST_RETURN_IF_ERROR(CheckShapes(file, c));
  PALIMPSEST_RETURN_IF_ERROR(ReadRope(file, c));
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufTensor* embedding, file.Tensor("token_embd.weight"));
  if (embedding->shape.size() != 2 || embedding->shape[0] != c.hidden) {
    return InvalidArgument("{}: token_embd.weight is not a matrix of {} columns", file.path(), c.hidden);
  }
  c.vocabulary = embedding->shape[1];
  c.tied_embeddings = !file.Tensor("output.weight").ok();
  return c;
}

}  // namespace palimpsest
