// A thousand requests that are called off at random: while they wait, read, load from SSD, evict, recall,
// answer or store. None takes another step, all that was taken comes back, and whoever is beside them says
// what they say alone (F24, I-12).
#include <gtest/gtest.h>

#include <map>

#include "proto/base/rng.h"
#include "tests/testing/temporary_folder.h"
#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

constexpr int kCancels = 1000;
constexpr int kTogether = 4;  // all but the last are called off

class CancelTest : public ::testing::Test {
 protected:
  // Of five short texts, so that some find what others stored; one in eight is an ingest.
  static Request Any(RngSequence& rng) {
    static const std::vector<CompressionCase> cases = CompressionCases();
    const CompressionCase& c = cases[rng.Below(cases.size())];
    const uint64_t text = 1 + rng.Below(5);
    const std::vector<int64_t> documents =
        c.mode == PrefillMode::kAnchored ? std::vector<int64_t>{130, 70} : std::vector<int64_t>{210};
    Request request = CompressionRequest(c.mode, Fitting(c.policy), RolePrompt(documents, 20, text), 12);
    request.question_visible = c.visible;
    request.trace = false;
    const bool may_recall =
        c.name == "exact_snapkv" || c.name == "anchored_snapkv" || c.name == "anchored_adakv";
    if (may_recall && rng.Below(2) == 0) request.recall = *ParseRecall("slices:budget=64,slice=16");
    if (rng.Below(8) == 0) {
      request.segments.pop_back();
      request.sampling.set_max_tokens(0);
      request.recall = {};
    }
    return request;
  }
  // The images of these cases are of a longer text.
  static std::string Fitting(const std::string& policy) {
    const size_t at = policy.find("201-320");
    return at == std::string::npos ? policy : policy.substr(0, at - 1) + policy.substr(at + 7);
  }
  std::unique_ptr<Engine> Make(const std::string& folder, int64_t groups) {
    TinyEngineOptions options = CompressionEngine(50);
    options.host_bytes = 1 << 17;  // little: much is on SSD
    options.view_bytes = options.index_bytes = 1 << 18;
    options.digests = true;
    options.ssd_folder = folder;
    options.arena_groups = groups;
    return MakeTinyEngine(model_, options);
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

TEST_F(CancelTest, AThousandRequestsAreCalledOff) {
  const TemporaryFolder folder;
  const auto engine = Make(folder.path() + "/ssd", 24), alone = Make(folder.path() + "/other", 0);
  RngSequence rng{Rng(24)};
  std::map<absl::StatusCode, int> ends;
  for (int cancelled = 0; cancelled < kCancels;) {
    std::vector<CancelToken> tokens(kTogether - 1);
    std::vector<Engine::JobId> jobs;
    std::vector<int64_t> steps;
    for (CancelToken& token : tokens) {
      Request request = Any(rng);
      request.cancel = &token;
      const absl::StatusOr<Engine::JobId> job = engine->Submit(std::move(request));
      ASSERT_TRUE(job.ok()) << job.status();
      jobs.push_back(*job);
      steps.push_back(static_cast<int64_t>(rng.Below(16)));
    }
    const Request stays = Any(rng);
    Request beside = stays;
    const Engine::JobId last = engine->Submit(std::move(beside)).value();
    for (int64_t step = 0; step < 16; ++step) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (steps[i] == step) tokens[i].Set();
      }
      engine->Step();
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (steps[i] != step) continue;
        const std::unique_ptr<Outcome> outcome = engine->Take(jobs[i]);
        ASSERT_NE(outcome, nullptr) << "it took another step";
        ++ends[outcome->status.code()];
        ++cancelled;
      }
    }
    const Outcome outcome = std::move(Drain(*engine, {last})[0]);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    if (cancelled % 10 < kTogether - 1) {
      EXPECT_EQ(Difference(outcome, RunOk(*alone, stays)), "");
    }
    ExpectAllReturned(*engine);
  }
  EXPECT_GT(ends[absl::StatusCode::kCancelled], kCancels / 2) << "or most were done before";
  EXPECT_EQ(ends.size(), 2u) << "called off, or done before, and nothing else";
}

}  // namespace
}  // namespace palimpsest::testing
