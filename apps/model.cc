#include "apps/model.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"
#include "text/chat_template.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

bool IsFile(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) && !fs::is_directory(path, ignored);
}

std::vector<std::string> ModelNames(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == ".gguf") names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status NoModel(const std::string& name, const fs::path& folder) {
  const std::vector<std::string> names = ModelNames(folder);
  std::string there = "no model is there";
  if (!names.empty())
    there = fmt::format("there are: {}", OneLine(fmt::format("{}", fmt::join(names, ", ")), 1024));
  if (name == kQuickStartModel) {
    return NotFound(
        "the quick-start model {} is not in {} ({}); run deploy/quickstart.sh, or give --model FILE.gguf",
        name, Quoted(folder.string(), 4096), there);
  }
  return NotFound("model {} is neither a file nor a name in {} ({}){}", Quoted(name, 4096),
                  Quoted(folder.string(), 4096), there, DidYouMean(name, names));
}

}  // namespace

absl::StatusOr<std::string> FindModelFile(const Config& config) {
  const std::string name = config.model.empty() ? std::string(kQuickStartModel) : config.model;
  const fs::path folder = fs::path(config.data_dir) / "models";
  const bool is_path = name.find('/') != std::string::npos;
  if (!is_path) {
    for (const fs::path& path : {folder / name, folder / (name + ".gguf")}) {
      if (IsFile(path)) return path.string();
    }
  }
  if (IsFile(name)) return name;
  std::error_code ignored;
  if (fs::is_directory(name, ignored)) {
    return Unimplemented("model {} is a folder; .gguf files work today", Quoted(name, 4096));
  }
  return is_path ? NotFound("model file {} does not exist", Quoted(name, 4096)) : NoModel(name, folder);
}

namespace {

// A quarter of the file system that the folder is or will be on, at most 64 GiB.
int64_t AutomaticTierBytes(const fs::path& folder) {
  constexpr int64_t kMost = int64_t{64} << 30, kLeast = int64_t{1} << 20;
  std::error_code error;
  for (fs::path at = fs::absolute(folder, error); !error && !at.empty(); at = at.parent_path()) {
    const fs::space_info space = fs::space(at, error);
    if (!error) return std::clamp(static_cast<int64_t>(space.capacity / 4), kLeast, kMost);
    if (at == at.parent_path()) break;
    error.clear();
  }
  return kLeast;
}

BlockFormat FormatOf(const std::string& name) {
  const std::optional<BlockFormat> format = ParseBlockFormat(name);
  PALIMPSEST_CHECK(format.has_value(), "the configuration takes no other names");
  return *format;
}

}  // namespace

absl::StatusOr<EngineOptions> StoringEngineOptionsOf(const Config& config) {
  PALIMPSEST_ASSIGN_OR_RETURN(EngineOptions options, EngineOptionsOf(config));
  if (!config.ssd.enabled) return options;
  options.ssd.folder = config.ssd.folder.empty() ? config.data_dir + "/tier" : config.ssd.folder;
  options.ssd.bytes =
      config.ssd.store_bytes > 0 ? config.ssd.store_bytes : AutomaticTierBytes(options.ssd.folder);
  options.ssd.format = FormatOf(config.ssd.format);
  options.ssd.readers = static_cast<int>(config.ssd.readers);
  if (config.ssd.encryption == "on") options.ssd.key_file = config.data_dir + "/keys/tier.key";
  return options;
}

absl::StatusOr<EngineOptions> ServingEngineOptionsOf(const Config& config) {
  PALIMPSEST_ASSIGN_OR_RETURN(EngineOptions options, StoringEngineOptionsOf(config));
  options.step_seconds = static_cast<double>(config.prefill.step_ms) / 1e3;
  return options;
}

absl::StatusOr<EngineOptions> EngineOptionsOf(const Config& config) {
  EngineOptions options;
  options.backend.isa = config.device.isa;
  options.backend.threads.threads = static_cast<int>(config.threads.count);
  options.backend.threads.pin = config.threads.pin;
  options.backend.threads.spin_us = config.threads.spin_us;
  // auto is bf16: it runs on every path and keeps the goldens.
  options.weights = config.device.numerics == "int8" ? WeightFormat::kInt8 : WeightFormat::kBf16;
  options.arena_bytes = config.device.arena_bytes;
  options.host_bytes = config.host.store_bytes;
  options.host_format = FormatOf(config.host.format);
  options.view_bytes = config.host.view_bytes;
  options.index_bytes = config.host.index_bytes;
  options.digests = true;
  options.chunk_tokens = config.prefill.chunk_tokens;
  options.share = config.prefill.share;
  return options;
}

proto::Sampling GreedySampling(int64_t max_tokens) {
  proto::Sampling sampling;
  sampling.set_max_tokens(max_tokens);
  sampling.set_top_p(1);
  sampling.set_repetition_penalty(1);
  return sampling;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Open(const Config& config) {
  std::unique_ptr<Model> model(new Model(config));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string path, FindModelFile(config));
  PALIMPSEST_ASSIGN_OR_RETURN(model->file_, GgufFile::Open(path));
  PALIMPSEST_ASSIGN_OR_RETURN(model->model_config_, ReadModelConfig(*model->file_));
  PALIMPSEST_ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::FromGguf(*model->file_));
  return model;
}

absl::StatusOr<PromptPlanner> Model::MakePlanner() const {
  const auto source = file_->GetString("tokenizer.chat_template");
  if (source.status().code() == absl::StatusCode::kNotFound) {
    return FailedPrecondition(
        "{}: the model has no chat template, so it cannot be asked; `palimpsest inspect` runs plain text",
        file_->path());
  }
  PALIMPSEST_RETURN_IF_ERROR(source.status());
  PALIMPSEST_ASSIGN_OR_RETURN(const auto chat_template, ChatTemplate::Parse(std::string(*source)));
  const auto written = [&](int32_t id) {
    return id < 0 ? std::string() : std::string(tokenizer_->TokenText(id));
  };
  ChatTemplate::Options options;
  options.bos_token = written(tokenizer_->bos());
  options.eos_token = written(tokenizer_->eos());
  return PromptPlanner::Create(tokenizer_, chat_template, options,
                               {.model = model_config_.name,
                                .window_tokens = model_config_.context,
                                .question_bytes = config_.limits.question_bytes,
                                .span_tokens = config_.prefill.span_tokens});
}

absl::StatusOr<ServedModel> Model::Served() const {
  ServedModel served;
  const fs::path path = file_->path();
  served.name = config_.server.model_name.empty() ? path.stem().string() : config_.server.model_name;
  PALIMPSEST_ASSIGN_OR_RETURN(served.hash, file_->ContentHash());
  served.window_tokens = model_config_.context;
  served.bytes_per_token =
      KvShape{model_config_.layers, model_config_.kv_heads, model_config_.head_size}.bytes_per_token();
  struct stat file {};
  if (::stat(path.c_str(), &file) == 0) served.created_unix = file.st_mtime;
  served.tokenizer = tokenizer_;
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, MakePlanner());
  served.planner = std::make_shared<const PromptPlanner>(std::move(planner));
  return served;
}

absl::StatusOr<std::unique_ptr<Engine>> Model::MakeEngine() const {
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsOf(config_));
  return Engine::Create(file_, tokenizer_, options);
}

absl::StatusOr<std::unique_ptr<Engine>> Model::MakeStoringEngine() const {
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, StoringEngineOptionsOf(config_));
  return Engine::Create(file_, tokenizer_, options);
}

absl::StatusOr<std::unique_ptr<Engine>> Model::MakeServingEngine() const {
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, ServingEngineOptionsOf(config_));
  return Engine::Create(file_, tokenizer_, options);
}

absl::StatusOr<Engine*> Model::StartEngine(const std::string& ssd_folder) {
  if (engine_ != nullptr) return engine_.get();
  Config config = config_;
  config.ssd.enabled = !ssd_folder.empty();
  config.ssd.folder = ssd_folder;
  config.data_dir = ssd_folder;
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, StoringEngineOptionsOf(config));
  PALIMPSEST_ASSIGN_OR_RETURN(engine_, Engine::Create(file_, tokenizer_, options));
  return engine_.get();
}

}  // namespace palimpsest
