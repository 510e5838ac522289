#include "tests/worker/compression_cases.h"

#include <bit>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest::testing {

std::vector<CompressionCase> CompressionCases() {
  using enum PrefillMode;
  return {
      {"exact_snapkv", kExact, "snapkv:budget=70,window=20,kernel=5"},
      {"exact_snapkv_visible", kExact, "snapkv:budget=130,window=20,kernel=5", true},
      {"exact_snapkv_max_pool_reduce", kExact, "snapkv:budget=90,window=33,reduce=max,order=pool-reduce"},
      {"exact_snapkv_avg_valid", kExact, "snapkv:budget=90,window=8,pool=avg,divisor=valid,reduce=sum"},
      {"exact_snapkv_wide_window", kExact, "snapkv:budget=150,window=100,pool=none"},
      {"exact_random", kExact, "random:budget=25%,seed=3"},
      {"exact_streaming", kExact, "streaming:sink=4,recent=60"},
      {"exact_streaming_long_sink", kExact, "streaming:sink=70,recent=40"},
      {"exact_h2o_visible", kExact, "h2o:heavy=60,recent=70,normalize=queries", true},
      {"exact_lookm_pivotal", kExact, "lookm:budget=90,recent=20,images=40-200/201-320"},
      {"exact_lookm_hard", kExact,
       "lookm:budget=90,recent=20,images=40-200/201-320,text_prior=hard,merge=values"},
      {"exact_snapkv_merged", kExact, "snapkv:budget=70,window=20,kernel=5,merge=values"},
      {"exact_tova", kExact, "tova:budget=80,merge=threshold"},
      {"exact_roco", kExact, "roco:budget=80,volatile=20"},
      {"exact_h2o_evicts", kExact, "h2o:heavy=60,recent=20,reduce=max,decode=evict"},
      {"exact_tova_evicts", kExact, "tova:budget=80,decode=evict"},
      {"exact_tova_evicts_any_visible", kExact, "tova:budget=130,last=free,decode=evict", true},
      {"exact_roco_evicts", kExact, "roco:budget=80,volatile=20,decode=evict"},
      {"anchored_h2o", kAnchored, "h2o:heavy=60,recent=20"},
      {"anchored_tova", kAnchored, "tova:budget=80"},
      {"anchored_roco", kAnchored, "roco:budget=128,volatile=20%"},
      {"exact_roco_visible", kExact, "roco:budget=130,volatile=100", true},
      {"exact_knorm", kExact, "knorm:budget=90"},
      {"exact_keydiff_rest", kExact, "keydiff:budget=90,keys=rest"},
      {"exact_expected", kExact, "expected:budget=90,future=100"},
      {"exact_expected_visible", kExact, "expected:budget=130,covariance=no", true},
      {"exact_sirllm", kExact, "sirllm:budget=90,recent=10"},
      {"exact_pyramidkv", kExact, "pyramidkv:budget=90,window=20"},
      {"exact_adakv", kExact, "adakv:budget=90,window=20"},
      {"exact_chunkkv", kExact, "chunkkv:budget=90,window=20,chunk=16"},
      {"exact_criticalkv", kExact, "criticalkv:budget=90,window=20"},
      {"exact_snapkv_target", kExact, "snapkv:budget=90,window=20,target=0.7"},
      {"exact_kvzip", kExact, "kvzip:budget=90,chunk=128,attend=all"},
      {"exact_kvzip_part_visible", kExact, "kvzip:budget=130,chunk=64,attend=part", true},
      {"exact_full_kivi2", kExact, "full:kv=kivi2,residual=64"},
      {"exact_full_kivi2_visible", kExact, "full:kv=kivi2", true},
      {"exact_snapkv_kivi2", kExact, "snapkv:budget=190,window=20,kv=kivi2,residual=64"},
      {"exact_snapkv_merged_kivi2", kExact, "snapkv:budget=150,window=20,merge=values,kv=kivi2,residual=64"},
      {"exact_adakv_kivi2", kExact, "adakv:budget=120,window=20,floor=0,kv=kivi2,residual=64"},
      {"anchored_keydiff_kivi2", kAnchored, "keydiff:budget=190,kv=kivi2,residual=64"},
      {"anchored_kvzip", kAnchored, "kvzip:budget=90,chunk=2K"},
      {"anchored_keydiff", kAnchored, "keydiff:budget=90"},
      {"anchored_expected", kAnchored, "expected:budget=90"},
      {"anchored_sirllm", kAnchored, "sirllm:budget=90"},
      {"anchored_pyramidkv", kAnchored, "pyramidkv:budget=90,window=20"},
      {"anchored_adakv", kAnchored, "adakv:budget=90,window=20,floor=0"},
      {"anchored_criticalkv", kAnchored, "criticalkv:budget=90,window=20"},
      {"pot_expected", kPot, "infinipot:pot=128,keep=60,score=expected"},
      {"pot_criticalkv", kPot, "infinipot:pot=128,keep=60,score=criticalkv"},
      {"pot_chunkkv", kPot, "infinipot:pot=128,keep=60,score=chunkkv,alpha=0.3"},
      {"pot_sirllm", kPot, "infinipot:pot=128,keep=60,score=sirllm,alpha=0"},
      {"anchored_snapkv", kAnchored, "snapkv:budget=80,window=20,kernel=5"},
      {"anchored_snapkv_visible", kAnchored, "snapkv:budget=80,window=20,kernel=5", true},
      {"anchored_random", kAnchored, "random:budget=90"},
      {"anchored_streaming", kAnchored, "streaming:sink=4,recent=80"},
      {"anchored_full", kAnchored, "full"},
      {"pot_cap", kPot, "infinipot:pot=128,keep=50"},
      {"pot_cap_max_no_novelty", kPot, "infinipot:pot=128,keep=64,alpha=0,reduce=max"},
      {"pot_novelty_alone", kPot, "infinipot:pot=128,keep=50,alpha=1"},
      {"pot_snapkv", kPot, "infinipot:pot=128,keep=60,score=snapkv"},
      {"pot_streaming", kPot, "infinipot:pot=100,keep=40,score=streaming,alpha=0"},
      {"pot_random", kPot, "infinipot:pot=100,keep=40,score=random"},
      {"pot_h2o", kPot, "infinipot:pot=128,keep=50,score=h2o"},
      {"pot_adakv", kPot, "infinipot:pot=160,keep=100,score=adakv,alpha=0.1"},
      {"pot_pyramidkv_no_room", kPot, "infinipot:pot=128,keep=60,score=pyramidkv"},
      {"pot_kvzip", kPot, "infinipot:pot=220,keep=70,score=kvzip"},
      {"pot_roco", kPot, "infinipot:pot=128,keep=60,score=roco,alpha=0"},
  };
}

std::vector<Segment> RolePrompt(std::vector<int64_t> documents, int64_t question, uint64_t seed,
                                int64_t prefix) {
  std::vector<Segment> segments;
  if (prefix > 0) {
    segments.push_back(
        {.tokens = RandomTokens(prefix, 1000), .shared = true, .role = Segment::Role::kPrefix});
  }
  for (const int64_t size : documents) {
    segments.push_back({.tokens = RandomTokens(size, seed * 1000 + segments.size()), .shared = true});
  }
  if (question > 0) {
    segments.push_back({.tokens = RandomTokens(question, seed + 500), .role = Segment::Role::kQuestion});
  }
  return segments;
}

Request CompressionRequest(PrefillMode mode, const std::string& policy, std::vector<Segment> segments,
                           int64_t max_tokens) {
  Request request = MakeRequest(std::move(segments), max_tokens);
  const auto spec = ParsePolicy(policy);
  PALIMPSEST_CHECK(spec.ok(), "{}", Message(spec.status()));
  request.prefill = mode;
  request.policy = *spec;
  if (mode == PrefillMode::kPot || request.policy.runs_catalyst())
    request.catalyst = RandomTokens(kCatalystTokens, 99);
  request.trace = true;
  return request;
}

Request CompressionRequest(const CompressionCase& c, int64_t max_tokens, uint64_t seed) {
  const std::vector<int64_t> documents =
      c.mode == PrefillMode::kAnchored ? std::vector<int64_t>{150, 90, 131} : std::vector<int64_t>{371};
  Request request = CompressionRequest(c.mode, c.policy, RolePrompt(documents, 37, seed), max_tokens);
  request.question_visible = c.visible;
  return request;
}

TinyEngineOptions CompressionEngine(int64_t chunk_tokens, int threads) {
  TinyEngineOptions options;
  options.threads = threads;
  options.chunk_tokens = chunk_tokens;
  options.host_bytes = 1 << 24;
  options.tokenizer = false;
  return options;
}

std::vector<Answer> AnswersTogether(Engine& engine, std::vector<Request> requests) {
  std::vector<Answer> answers(requests.size());
  std::vector<Engine::JobId> jobs;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].logprobs = true;
    requests[i].on_token = [told = &answers[i].log_probabilities](const AnswerToken& token) {
      told->push_back(token.log_probability);
    };
    auto job = engine.Submit(std::move(requests[i]));
    EXPECT_TRUE(job.ok()) << job.status();
    if (!job.ok()) return answers;
    jobs.push_back(*job);
  }
  std::vector<Outcome> outcomes = Drain(engine, jobs);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_TRUE(outcomes[i].status.ok()) << outcomes[i].status;
    answers[i].outcome = std::move(outcomes[i]);
  }
  return answers;
}

Answer AnswerOf(Engine& engine, Request request) {
  std::vector<Request> one;
  one.push_back(std::move(request));
  return std::move(AnswersTogether(engine, std::move(one))[0]);
}

std::string Difference(const Answer& a, const Answer& b, bool kept) {
  if (std::string text = Difference(a.outcome, b.outcome); !text.empty()) return text;
  if (a.log_probabilities.size() != b.log_probabilities.size())
    return fmt::format("{} and {} tokens told", a.log_probabilities.size(), b.log_probabilities.size());
  for (size_t i = 0; i < a.log_probabilities.size(); ++i) {
    if (std::bit_cast<uint64_t>(a.log_probabilities[i]) != std::bit_cast<uint64_t>(b.log_probabilities[i]))
      return fmt::format("log-probability {}", i);
  }
  if (!kept) return "";
  if (a.outcome.kept != b.outcome.kept) return "what was kept";
  if (a.outcome.cycles.size() != b.outcome.cycles.size())
    return fmt::format("{} and {} cycles", a.outcome.cycles.size(), b.outcome.cycles.size());
  for (size_t i = 0; i < a.outcome.cycles.size(); ++i) {
    if (a.outcome.cycles[i] != b.outcome.cycles[i]) return fmt::format("cycle {}", i);
  }
  return "";
}

}  // namespace palimpsest::testing
