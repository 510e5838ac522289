// What tests of the engine have in common: an engine over a tiny model, prompts, and an outcome's bits.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/tiny_model.h"
#include "worker/engine.h"

namespace palimpsest::testing {

struct Numerics {
  std::string isa = "auto";
  WeightFormat format = WeightFormat::kBf16;
};
// All that this machine can run.
std::vector<Numerics> AvailableNumerics();
std::string NumericsName(const ::testing::TestParamInfo<Numerics>& info);

struct TinyEngineOptions {
  Numerics numerics;
  int threads = 2;
  int64_t chunk_tokens = 512;
  int64_t arena_groups = 0;  // block groups that the arena holds; 0: the engine's default
  int64_t host_bytes = 0;
  int64_t view_bytes = 0;
  int64_t index_bytes = 0;
  int64_t recall_budgets_kept = 4;
  bool digests = false;
  std::string ssd_folder;  // empty: no SSD tier; its key file lies beside it
  MoverOptions mover;
  std::function<std::unique_ptr<Tier>(std::unique_ptr<Tier>)> wrap_host = nullptr, wrap_ssd = nullptr;
  double step_seconds = 0;
  bool tokenizer = true;
  const Clock* clock = &RealClock();
};
std::unique_ptr<Engine> MakeTinyEngine(const std::shared_ptr<const GgufFile>& model,
                                       const TinyEngineOptions& options = {});

std::vector<int32_t> RandomTokens(int64_t count, uint64_t seed);
// prefix | document | question; no question: as an ingest has it.
std::vector<Segment> Prompt(int64_t document, int64_t question, uint64_t seed = 1, int64_t prefix = 21);

// Draws by temperature, so that each token depends on all logits; reports the prompt's last logits whole.
Request MakeRequest(std::vector<Segment> segments, int64_t max_tokens);
Request MakeIngest(std::vector<Segment> segments);

std::vector<float> LogitsOf(const Outcome& outcome);  // by token id
// Where logits or tokens differ by a bit, as text; empty if nowhere.
std::string Difference(const Outcome& a, const Outcome& b);

Outcome RunOk(Engine& engine, Request request);
// Steps until nothing is left; takes the outcomes in the order of `jobs`.
std::vector<Outcome> Drain(Engine& engine, const std::vector<Engine::JobId>& jobs);

// Nothing is held once sealed groups are dropped: what was taken came back (I-12).
void ExpectAllReturned(Engine& engine);

}  // namespace palimpsest::testing
