// Any text as a policy and as a recall: what is refused says so in one line; what is accepted has one text,
// is read back from it, fits or not without a crash, and makes a policy that scores.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/policy_spec.h"
#include "proto/base/quote.h"
#include "proto/base/recall_spec.h"
#include "proto/base/status.h"
#include "worker/compression/shares.h"

namespace palimpsest {
namespace {

void CheckRefusal(const absl::Status& status) {
  PALIMPSEST_CHECK(status.code() == absl::StatusCode::kInvalidArgument ||
                   status.code() == absl::StatusCode::kUnimplemented);
  const std::string message = Message(status);
  PALIMPSEST_CHECK(!message.empty() && message.size() < 1000 && IsPlainText(message), "an error of {} bytes",
                   message.size());
}

void CheckNumbers(const PolicySpec& policy) {
  for (const int64_t tokens : {0, 1, 100, 5000, 1 << 30}) {
    PALIMPSEST_CHECK(policy.BudgetOf(tokens) >= 0 && policy.KeepOf(tokens) >= 0);
    PALIMPSEST_CHECK(policy.LimitOf(tokens) >= 0 && policy.StaysOf(tokens) >= 0);
    for (const int64_t fixed : {0, 50}) {
      const absl::Status fits = CheckPolicyFits(policy, tokens, 20, fixed);
      if (!fits.ok()) CheckRefusal(fits);
      // What fits leaves room for more than what always stays.
      if (!fits.ok() || !policy.compresses()) continue;
      PALIMPSEST_CHECK(policy.BudgetOf(tokens) > fixed || policy.BudgetOf(tokens) >= tokens);
      // And of what is held while the answer grows, something can go.
      PALIMPSEST_CHECK(!policy.evicts() || policy.LimitOf(tokens) > fixed + policy.StaysOf(tokens) - 1);
    }
  }
}

void CheckScores(const PolicySpec& spec) {
  const std::unique_ptr<CompressionPolicy> policy = MakePolicy(spec);
  PALIMPSEST_CHECK((policy != nullptr) == spec.compresses());
  if (policy == nullptr) return;
  std::vector<int32_t> tokens(70);
  std::vector<float> attention(2 * tokens.size(), 0.25f), scores(tokens.size()), scratch(2 * tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  constexpr size_t kSize = 16;
  const std::vector<float> rows(tokens.size() * kSize, 0.5f), moments(2 * kSize * kSize, 0.1f);
  HeadInput head{.group = 2, .head_size = kSize, .tokens = tokens, .attention = attention.data()};
  head.attention_stride = static_cast<int64_t>(tokens.size());
  head.losses = head.output_norms = std::span(rows).first(tokens.size());
  head.keys = head.values = rows;
  head.sums = head.squares = attention.data();
  head.sums_stride = head.attention_stride;
  head.seen_by = std::span(rows).first(tokens.size());
  head.scratch = scratch;
  head.query_mean = std::span(moments).first(2 * kSize);
  head.query_covariance = moments;
  policy->Score(head, scores);
  const auto is_nan = [](float s) { return std::isnan(s); };
  PALIMPSEST_CHECK(std::none_of(scores.begin(), scores.end(), is_nan));
  std::vector<float> rest(scores.size());
  policy->ScoreRest(head, scores, rest);
  PALIMPSEST_CHECK(std::none_of(rest.begin(), rest.end(), is_nan));
  // Two layers of two heads share what leaves room for more than what stays; the sums are checked there.
  std::vector<std::vector<float>> heads(4, scores);
  policy->Agree(std::span(heads).first(2));
  policy->Agree(std::span(heads).last(2));
  const int64_t budget = std::min<int64_t>(60, spec.BudgetOf(60));
  std::vector<float> looks(scores.size());
  policy->Attention(head, looks);
  const std::vector<std::vector<float>> attended(4, looks);
  const HeadShares shares{
      .layers = 2, .kv_heads = 2, .budget = budget, .most = 70, .scores = heads, .attention = attended};
  if (budget > StayingOf(shares)) CountsOf(*policy, shares);
}

}  // namespace
}  // namespace palimpsest

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<RecallSpec> recall = ParseRecall(text);
  if (!recall.ok()) CheckRefusal(recall.status());
  PALIMPSEST_CHECK(!recall.ok() || *ParseRecall(RecallText(*recall)) == *recall);
  const absl::StatusOr<PolicySpec> policy = ParsePolicy(text);
  if (!policy.ok()) {
    CheckRefusal(policy.status());
    return 0;
  }
  const std::string printed = PolicyText(*policy);
  const absl::StatusOr<PolicySpec> back = ParsePolicy(printed);
  PALIMPSEST_CHECK(back.ok() && *back == *policy && PolicyText(*back) == printed, "printed as {} bytes",
                   printed.size());
  CheckNumbers(*policy);
  CheckScores(*policy);
  return 0;
}
