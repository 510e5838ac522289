// What an audit says of attention is what plain float64 loops over the model say; all that comes back is all
// that was seen; and the audit changes no bit of the answer.
//
// Bound: masses and errors are means over heads and tokens; keys, values and queries of the engine are
// rounded to bf16 (2^-9), which moves a logit, and a weight with it, by about a hundredth.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/testing/reference_model.h"
#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

constexpr int64_t kContext = 21 + 150, kLooked = 6;
constexpr double kBound = 0.01;

class AttentionAuditTest : public ::testing::Test {
 protected:
  // A text of 150 tokens behind the prefix; its next token is the question, and five more are the answer's.
  Request AuditOf(const std::string& recall, PrefillMode mode = kExact,
                  const std::string& policy = "random:budget=60,seed=5") const {
    Request request = CompressionRequest(mode, policy, RolePrompt({150}, 1), kLooked);
    request.generated = RandomTokens(kLooked - 1, 77);
    request.top = 0;
    request.ignore_end = true;
    request.trace = true;
    request.recall = *ParseRecall("all");
    request.audit = *ParseRecall(recall);
    return request;
  }
  Outcome Run(const Request& request) const {
    TinyEngineOptions options = CompressionEngine(100);
    options.index_bytes = 1 << 24;
    options.digests = true;
    return AnswerOf(*MakeTinyEngine(model_, options), request).outcome;
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

std::vector<double> Output(const std::vector<double>& weights, const std::vector<ReferenceModel::Held>& held,
                           const std::vector<bool>& seen) {
  std::vector<double> out(held[0].value.size(), 0.0);
  double mass = 0;
  for (size_t i = 0; i < held.size(); ++i) {
    if (!seen[i]) continue;
    mass += weights[i];
    for (size_t d = 0; d < out.size(); ++d) out[d] += weights[i] * held[i].value[d];
  }
  for (double& x : out) x /= mass;
  return out;
}

TEST_F(AttentionAuditTest, IsWhatPlainLoopsSay) {
  const Request request = AuditOf("none");
  const Outcome outcome = Run(request);
  ASSERT_TRUE(outcome.audit.has_value());
  EXPECT_EQ(outcome.audit->tokens, kLooked);
  const ReferenceModel model(*model_, Rounding::kNone);
  const size_t kv_heads = static_cast<size_t>(model.kv_heads()), heads = static_cast<size_t>(model.heads()),
               size = static_cast<size_t>(model.head_size());
  std::vector<int32_t> tokens;
  for (const Segment& segment : request.segments)
    tokens.insert(tokens.end(), segment.tokens.begin(), segment.tokens.end());
  tokens.insert(tokens.end(), request.generated.begin(), request.generated.end());
  ReferenceModel::Cache cache = model.Empty();
  std::vector<AttentionShare> layers(static_cast<size_t>(model.layers()));
  for (size_t token = 0; token < tokens.size(); ++token) {
    const int32_t number = static_cast<int32_t>(token);
    const ReferenceModel::Seen row = model.Run(tokens[token], number, number, &cache);
    if (number < kContext) continue;
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      for (size_t h = 0; h < heads; ++h) {
        const size_t kv_head = h / (heads / kv_heads);
        const std::vector<ReferenceModel::Held>& held = cache[layer * kv_heads + kv_head];
        const std::vector<double> weights =
            model.Attention(std::span(row.queries[layer]).subspan(h * size, size), held, held.size());
        const std::vector<int32_t>& kept = outcome.kept[layer][kv_head];
        std::vector<bool> stays(held.size());
        double resident = 0;
        for (size_t i = 0; i < held.size(); ++i) {
          stays[i] = held[i].token >= kContext || std::binary_search(kept.begin(), kept.end(), held[i].token);
          resident += stays[i] ? weights[i] : 0;
        }
        const std::vector<double> dense = Output(weights, held, std::vector<bool>(held.size(), true));
        const std::vector<double> without = Output(weights, held, stays);
        double difference = 0, length = 0;
        for (size_t d = 0; d < size; ++d) {
          difference += std::pow(without[d] - dense[d], 2);
          length += std::pow(dense[d], 2);
        }
        layers[layer].resident += resident / static_cast<double>(heads * kLooked);
        layers[layer].error += std::sqrt(difference / length) / static_cast<double>(heads * kLooked);
      }
    }
  }
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const AttentionShare& told = outcome.audit->layers[layer];
    EXPECT_NEAR(told.resident, layers[layer].resident, kBound) << "layer " << layer;
    EXPECT_NEAR(told.error, layers[layer].error, 3 * kBound) << "layer " << layer;
    EXPECT_EQ(told.seen, told.resident) << "nothing comes back";
    EXPECT_LT(told.resident, 0.9) << "a policy that dropped nothing says nothing";
  }
}

TEST_F(AttentionAuditTest, WhatComesBackIsSeenAndAllOfItIsAll) {
  for (const PrefillMode mode : {kExact, kAnchored}) {
    const Outcome none = Run(AuditOf("none", mode)), few = Run(AuditOf("slices:budget=32,slice=8", mode)),
                  many = Run(AuditOf("slices:budget=96,slice=8", mode)), all = Run(AuditOf("all", mode));
    for (size_t layer = 0; layer < none.audit->layers.size(); ++layer) {
      const auto share = [layer](const Outcome& of) { return of.audit->layers[layer]; };
      EXPECT_LT(share(none).seen, share(few).seen);
      EXPECT_LT(share(few).seen, share(many).seen);
      EXPECT_LT(share(many).seen, share(all).seen);
      EXPECT_GT(share(none).error, share(many).error);
      EXPECT_NEAR(share(all).seen, 1, 1e-9);
      EXPECT_NEAR(share(all).error, 0, 1e-9);
      EXPECT_NEAR(share(none).resident, share(all).resident, 1e-12) << "what stays is the policy's to say";
    }
  }
}

TEST_F(AttentionAuditTest, TheAnswerIsThatOfRecallAll) {
  const Request audited = AuditOf("slices:budget=32,slice=8");
  Request plain = audited;
  plain.audit.reset();
  EXPECT_EQ(Difference(Run(audited), Run(plain)), "");
}

TEST_F(AttentionAuditTest, OtherRecallsAreRefused) {
  Request request = AuditOf("none");
  request.recall = *ParseRecall("slices:budget=64");
  const auto engine = MakeTinyEngine(model_, CompressionEngine(100));
  EXPECT_EQ(engine->Submit(request).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace palimpsest::testing
