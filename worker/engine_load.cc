// How an engine comes to be: model, backend, arena, tiers, and the schema that names its blocks.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine.h"

namespace palimpsest {
namespace {

BlockKeySchema SchemaOf(const ModelConfig& config, const Hash256& model_hash,
                        const std::string& numerics_class, const std::string& kv_dtype) {
  BlockKeySchema schema;
  schema.model_hash = model_hash;
  schema.layers = static_cast<int32_t>(config.layers);
  schema.query_heads = static_cast<int32_t>(config.heads);
  schema.kv_heads = static_cast<int32_t>(config.kv_heads);
  schema.head_size = static_cast<int32_t>(config.head_size);
  schema.rope_base = config.rope_theta;
  schema.rope_dimension = static_cast<int32_t>(config.rope_size);
  schema.rope_scaling = config.rope_text;
  schema.kv_dtype = kv_dtype;
  schema.layout = "head-major/unrotated";
  schema.numerics_class = numerics_class;
  schema.prefill_mode = "exact";
  return schema;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const std::shared_ptr<const GgufFile>& file,
                                                       std::shared_ptr<const Tokenizer> tokenizer,
                                                       const EngineOptions& options) {
  std::unique_ptr<Engine> engine(new Engine(options));
  engine->tokenizer_ = std::move(tokenizer);
  PALIMPSEST_RETURN_IF_ERROR(engine->Load(*file));
  return engine;
}

absl::Status Engine::Load(const GgufFile& file) {
  PALIMPSEST_ASSIGN_OR_RETURN(config_, ReadModelConfig(file));
  if (tokenizer_ != nullptr && tokenizer_->vocabulary_size() > config_.vocabulary) {
    return InvalidArgument("{}: {} tokens in the vocabulary, {} rows of embeddings", file.path(),
                           tokenizer_->vocabulary_size(), config_.vocabulary);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(backend_, MakeBackend(options_.backend));
  if (!backend_->Supports(options_.weights)) {
    return Unimplemented("device.numerics int8 is not available on {}; use bf16", backend_->name());
  }
  // Blocks outlive this build: who changes a result of some kernel raises the number.
  constexpr int kKernelVersion = 1;
  numerics_class_ = fmt::format("{}/{}/{}", backend_->name(),
                                options_.weights == WeightFormat::kInt8 ? "int8" : "bf16", kKernelVersion);
  PALIMPSEST_ASSIGN_OR_RETURN(model_hash_, file.ContentHash());
  PALIMPSEST_ASSIGN_OR_RETURN(const Hash256 model_hash, Hash256::FromHex(model_hash_));
  PALIMPSEST_ASSIGN_OR_RETURN(weights_, LoadWeights(file, config_, options_.weights, *backend_));
  constexpr int64_t kRopeTablePositions = 8192;
  rope_ = std::make_unique<RopeTable>(config_.head_size, config_.rope_size, config_.rope_theta,
                                      config_.rope_factors, std::min(config_.context, kRopeTablePositions));
  const KvShape shape{config_.layers, config_.kv_heads, config_.head_size};
  int64_t arena_bytes = options_.arena_bytes;
  if (arena_bytes == 0) {
    const int64_t groups = 2 * DivideUp(std::min<int64_t>(config_.context, 131072), kTileSlots) + 16;
    arena_bytes = groups * shape.tiles() * TileArena::TileBytes(shape.head_size);
  }
  arena_ = std::make_unique<TileArena>(arena_bytes, config_.head_size);
  if (arena_->capacity_tiles() < shape.tiles()) {
    return ResourceExhausted("device.arena_bytes {} is less than one block of {} ({} bytes); raise it",
                             arena_bytes, config_.name, shape.tiles() * arena_->tile_bytes());
  }
  PALIMPSEST_RETURN_IF_ERROR(OpenTiers());
  store_ = std::make_unique<TieredStore>(shape, arena_.get(), backend_.get(), rope_.get(), mover_.get());
  if (options_.digests) store_->MakeDigests(DigestKind::kQ2);
  transformer_ =
      std::make_unique<Transformer>(config_, &weights_, backend_.get(), rope_.get(), options_.chunk_tokens);
  // Attention runs at about half the rate of the products.
  const double product_work = static_cast<double>(
      config_.hidden * (2 * config_.q_columns() + 2 * config_.kv_columns() + 3 * config_.ffn));
  const double attention_work = 2 * static_cast<double>(2 * config_.q_columns());  // of one token of depth
  scheduler_ =
      std::make_unique<Scheduler>(Scheduler::Options{.rows_max = options_.chunk_tokens,
                                                     .share = options_.share,
                                                     .step_seconds = options_.step_seconds,
                                                     .attention_depth = product_work / attention_work});
  step_.reserve(static_cast<size_t>(options_.chunk_tokens));
  step_jobs_.reserve(static_cast<size_t>(options_.chunk_tokens));

  // What came back with a loss is not what was computed, so it has another name.
  std::string kv_dtype = "bf16";
  const auto name_loss = [&](std::string_view tier, bool there, BlockFormat format) {
    if (there && format != BlockFormat::kBf16)
      kv_dtype += fmt::format("/{}-{}", tier, BlockFormatName(format));
  };
  name_loss("host", mover_->host() != nullptr, options_.host_format);
  name_loss("ssd", mover_->has_ssd(), options_.ssd.format);
  schema_ = SchemaOf(config_, model_hash, numerics_class_, kv_dtype);
  key_schema_ = CanonicalText(schema_);
  backend_->pool().PinCaller();  // last: threads that others start here begin where this one runs
  return absl::OkStatus();
}

}  // namespace palimpsest
