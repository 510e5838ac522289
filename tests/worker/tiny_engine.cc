#include "tests/worker/tiny_engine.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/backend.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest::testing {

std::vector<Numerics> AvailableNumerics() {
  std::vector<Numerics> all;
  for (const std::string& isa : AvailableIsas()) {
    const auto backend = MakeBackend({.isa = isa, .threads = {.threads = 1, .pin = false}});
    for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kInt8}) {
      if ((*backend)->Supports(format)) all.push_back({isa, format});
    }
  }
  return all;
}
std::string NumericsName(const ::testing::TestParamInfo<Numerics>& info) {
  return info.param.isa + (info.param.format == WeightFormat::kBf16 ? "_bf16" : "_int8");
}

std::unique_ptr<Engine> MakeTinyEngine(const std::shared_ptr<const GgufFile>& model,
                                       const TinyEngineOptions& o) {
  EngineOptions options;
  options.backend = {.isa = o.numerics.isa, .threads = {.threads = o.threads, .pin = false, .spin_us = 20}};
  options.weights = o.numerics.format;
  options.chunk_tokens = o.chunk_tokens;
  options.host_bytes = o.host_bytes;
  options.view_bytes = o.view_bytes;
  options.index_bytes = o.index_bytes;
  options.recall_budgets_kept = o.recall_budgets_kept;
  options.digests = o.digests;
  if (!o.ssd_folder.empty()) {
    options.ssd = {.folder = o.ssd_folder, .bytes = 1 << 28, .key_file = o.ssd_folder + ".key", .readers = 4};
  }
  options.mover = o.mover;
  options.wrap_host = o.wrap_host;
  options.wrap_ssd = o.wrap_ssd;
  options.step_seconds = o.step_seconds;
  options.clock = o.clock;
  if (o.arena_groups > 0) {
    const auto config = ReadModelConfig(*model);
    const TileArena one(1, config->head_size);
    options.arena_bytes = o.arena_groups * config->layers * config->kv_heads * one.tile_bytes();
  }
  std::shared_ptr<const Tokenizer> tokenizer;
  if (o.tokenizer) tokenizer = Tokenizer::FromGguf(*model).value();
  auto engine = Engine::Create(model, tokenizer, options);
  PALIMPSEST_CHECK(engine.ok(), "{}", Message(engine.status()));
  return *std::move(engine);
}

std::vector<int32_t> RandomTokens(int64_t count, uint64_t seed) {
  RngSequence rng{Rng(seed)};
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.Below(kTinyVocabulary)));
  return tokens;
}

std::vector<Segment> Prompt(int64_t document, int64_t question, uint64_t seed, int64_t prefix) {
  std::vector<Segment> segments;
  segments.push_back({.tokens = RandomTokens(prefix, 1000), .shared = true});
  segments.push_back({.tokens = RandomTokens(document, seed), .shared = true});
  if (question > 0) segments.push_back({.tokens = RandomTokens(question, seed + 500)});
  return segments;
}

Request MakeRequest(std::vector<Segment> segments, int64_t max_tokens) {
  Request request;
  request.segments = std::move(segments);
  request.sampling.set_max_tokens(max_tokens);
  request.sampling.set_temperature(1);
  request.sampling.set_top_p(1);
  request.sampling.set_repetition_penalty(1);
  request.sampling.set_seed(7);
  request.ignore_end = true;
  request.top = kTinyVocabulary;
  return request;
}
Request MakeIngest(std::vector<Segment> segments) {
  Request request = MakeRequest(std::move(segments), 0);
  request.top = 0;
  return request;
}

std::vector<float> LogitsOf(const Outcome& outcome) {
  std::vector<float> logits(outcome.top.size());
  for (const TopToken& token : outcome.top) logits[static_cast<size_t>(token.id)] = token.logit;
  return logits;
}

std::string Difference(const Outcome& a, const Outcome& b) {
  if (!a.status.ok() || !b.status.ok())
    return "a request failed: " + a.status.ToString() + b.status.ToString();
  const std::vector<float> x = LogitsOf(a), y = LogitsOf(b);
  if (x.size() != y.size()) return fmt::format("{} and {} logits", x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::bit_cast<uint32_t>(x[i]) != std::bit_cast<uint32_t>(y[i])) {
      return fmt::format("logit {} is {:a} and {:a}", i, x[i], y[i]);
    }
  }
  if (a.tokens != b.tokens)
    return fmt::format("tokens {} and {}", fmt::join(a.tokens, " "), fmt::join(b.tokens, " "));
  return "";
}

Outcome RunOk(Engine& engine, Request request) {
  auto outcome = engine.Run(std::move(request));
  EXPECT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_TRUE(outcome.ok() && outcome->status.ok()) << outcome->status;
  return outcome.ok() ? *std::move(outcome) : Outcome{};
}

std::vector<Outcome> Drain(Engine& engine, const std::vector<Engine::JobId>& jobs) {
  while (engine.Step()) {
  }
  std::vector<Outcome> outcomes;
  for (const Engine::JobId job : jobs) {
    std::unique_ptr<Outcome> outcome = engine.Take(job);
    EXPECT_NE(outcome, nullptr) << "request " << job << " did not end";
    outcomes.push_back(outcome != nullptr ? std::move(*outcome) : Outcome{});
  }
  return outcomes;
}

void ExpectAllReturned(Engine& engine) {
  engine.store().DropUnpinned();
  EXPECT_EQ(engine.store().arena().used_tiles(), 0);
  EXPECT_EQ(engine.store().available_tiles(), engine.store().arena().capacity_tiles());
  EXPECT_EQ(engine.store().stats().device_groups, 0);
}

}  // namespace palimpsest::testing
