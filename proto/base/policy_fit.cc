// What a policy's numbers come to once the text is known.
#include <algorithm>

#include "proto/base/policy_spec.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// A stretch costs a run of the catalyst, some 20 tokens, and a score of all that is in the pot: below this,
// more work goes into forgetting than into reading.
constexpr int64_t kStretchTokensMin = 16;

// The least share of `tokens` that is at least `least` tokens; over 100: none is.
int64_t LeastPercent(int64_t least, int64_t tokens) { return (least * 100 + tokens - 1) / tokens; }

// `budget` must be at least `least`, unless it holds all tokens for good.
absl::Status CheckBudget(const PolicySpec& policy, std::string_view key, const Amount& amount, int64_t budget,
                         int64_t least, std::string_view why, int64_t tokens) {
  if ((budget >= tokens && !policy.evicts()) || budget >= least) return absl::OkStatus();
  if (!amount.percent) {
    return InvalidArgument("policy {}: {}={} is too small: {}; {} or more", policy.name(), key, amount.value,
                           why, amount.value + least - budget);
  }
  return InvalidArgument("policy {}: {}={}% of {} tokens are {}, too few: {}; {}% to 100%", policy.name(),
                         key, amount.value, tokens, amount.Of(tokens), why,
                         std::min<int64_t>(100, LeastPercent(amount.Of(tokens) + least - budget, tokens)));
}

absl::Status CheckPot(const PolicySpec& policy, int64_t tokens, int64_t catalyst, int64_t fixed) {
  const char* const what = policy.repeats() ? "repetition" : "catalyst";
  if (policy.repeats()) catalyst += PolicySpec::kRepeatLead + PolicySpec::kRepeatMin;
  const int64_t pot = policy.pot.Of(tokens), keep = policy.KeepOf(tokens);
  const int64_t rest = pot - catalyst - kStretchTokensMin;  // that a distillation may keep
  if (catalyst >= pot) {
    const int64_t most = policy.repeats() ? 0 : pot - keep - kStretchTokensMin;
    return InvalidArgument(
        "policy infinipot: a {} of {} tokens does not fit a pot of {}: {}pot of {} or more", what, catalyst,
        pot, most > 0 ? fmt::format("at most {}, or ", most) : "", fixed + 1 + catalyst + kStretchTokensMin);
  }
  if (keep <= fixed) {
    return InvalidArgument(
        "policy infinipot: keep of {} tokens of a pot of {} is too small: the prefix of {} stays, and at "
        "least one token more: keep of {} or more, pot of {} or more",
        keep, pot, fixed, fixed + 1, fixed + 1 + catalyst + kStretchTokensMin);
  }
  if (keep > rest) {
    return InvalidArgument(
        "policy infinipot: a pot of {} tokens is too small for keep of {}, a {} of {} and {} new "
        "tokens each time: pot of {} or more{}",
        pot, keep, what, catalyst, kStretchTokensMin, keep + catalyst + kStretchTokensMin,
        rest > fixed ? fmt::format(", or keep of {} to {}", fixed + 1, rest) : "");
  }
  return absl::OkStatus();
}

// First tokens that stay by the policy's own rule, counted from the prompt's first.
int64_t SinksOf(const PolicySpec& policy) {
  switch (policy.kind) {
    case PolicySpec::Kind::kStreaming:
    case PolicySpec::Kind::kExpected:
    case PolicySpec::Kind::kSirLlm:
    case PolicySpec::Kind::kRoCo:
      return policy.sink;
    case PolicySpec::Kind::kLookM:
      return policy.text_prior == PolicySpec::TextPrior::kNone ? PolicySpec::kLookMSinks : 0;
    default:
      return 0;
  }
}

// Images are counted from token `fixed` on, of `tokens`.
absl::Status CheckImages(const PolicySpec& policy, int64_t tokens, int64_t fixed) {
  int64_t all = 0;
  for (const PolicySpec::Image& image : policy.images) {
    all += image.end - image.first;
    if (image.end <= tokens - fixed) continue;
    return InvalidArgument("policy lookm: the image {}-{} is not in the {} tokens there are: 0 to {}",
                           image.first, image.end, tokens - fixed, tokens - fixed);
  }
  if (all < tokens - fixed || all == 0) return absl::OkStatus();
  return InvalidArgument("policy lookm: images are all of the {} tokens; at least 1 must be text", all);
}

// What hard text prior keeps of `tokens`: all text and the last `recent`; of images the best, if text leaves
// room.
int64_t HardBudget(const PolicySpec& policy, int64_t tokens, int64_t first, int64_t budget, int64_t recent) {
  int64_t stays = tokens;
  for (const PolicySpec::Image& image : policy.images) {
    const int64_t goes = std::min(first + image.end, tokens - recent) - (first + image.first);
    stays -= std::max<int64_t>(0, goes);
  }
  return std::max(budget, stays);
}

}  // namespace

int64_t PolicySpec::BudgetOf(int64_t tokens, int64_t images_from) const {
  switch (kind) {
    case Kind::kAuto:
    case Kind::kFull:
      return tokens;
    case Kind::kH2o:
      return std::min(tokens, LimitOf(tokens));
    case Kind::kLookM: {
      const int64_t own = std::min(tokens, budget.Of(tokens));
      const bool hard = text_prior == TextPrior::kHard && !images.empty();
      return hard ? HardBudget(*this, tokens, images_from, own, std::min(tokens, recent.Of(tokens))) : own;
    }
    case Kind::kInfiniPot:
      return pot.Of(tokens);
    case Kind::kStreaming:
      return std::min(tokens, sink + recent.Of(tokens));
    default:
      return std::min(tokens, budget.Of(tokens));
  }
}

int64_t PolicySpec::LimitOf(int64_t tokens) const {
  return kind == Kind::kH2o ? heavy.Of(tokens) + recent.Of(tokens) : budget.Of(tokens);
}

int64_t PolicySpec::StaysOf(int64_t tokens) const {
  if (kind == Kind::kH2o) return recent.Of(tokens);
  if (kind == Kind::kRoCo) return std::max(volatile_tokens.Of(tokens), sink + recent.Of(tokens));
  return kind == Kind::kTova && last == Last::kStays ? 1 : 0;
}

int64_t PolicySpec::MostOf(int64_t tokens, int64_t images_from) const {
  return shares() ? std::min(tokens, 2 * BudgetOf(tokens)) : BudgetOf(tokens, images_from);
}

int64_t PolicySpec::KeepOf(int64_t tokens) const {
  return keep.value == 0 ? pot.Of(tokens) / 2 : keep.Of(tokens);
}

absl::Status CheckPolicyFits(const PolicySpec& policy, int64_t tokens, int64_t catalyst, int64_t fixed,
                             int64_t question) {
  const int64_t budget = policy.evicts() ? policy.LimitOf(tokens) : policy.BudgetOf(tokens, fixed);
  switch (policy.kind) {
    case PolicySpec::Kind::kAuto:
    case PolicySpec::Kind::kFull:
      return absl::OkStatus();
    case PolicySpec::Kind::kSnapKv:
    case PolicySpec::Kind::kPyramidKv:
    case PolicySpec::Kind::kAdaKv:
    case PolicySpec::Kind::kChunkKv:
    case PolicySpec::Kind::kCriticalKv:
      return CheckBudget(policy, "budget", policy.budget, budget, fixed + policy.window + 1,
                         fmt::format("window={} and the prefix of {} tokens stay", policy.window, fixed),
                         tokens);
    case PolicySpec::Kind::kExpected:
    case PolicySpec::Kind::kSirLlm: {
      const bool last = policy.kind == PolicySpec::Kind::kSirLlm;
      const int64_t stay = std::max(fixed, policy.sink) + (last ? policy.recent.value : 0);
      return CheckBudget(policy, "budget", policy.budget, budget, stay + 1,
                         fmt::format("sink={}{} and the prefix of {} tokens stay", policy.sink,
                                     last ? fmt::format(", recent={}", policy.recent.value) : "", fixed),
                         tokens);
    }
    case PolicySpec::Kind::kRandom:
    case PolicySpec::Kind::kTova:
    case PolicySpec::Kind::kKnorm:
    case PolicySpec::Kind::kKeyDiff:
    case PolicySpec::Kind::kKvZip:
      return CheckBudget(policy, "budget", policy.budget, budget, fixed + 1,
                         fmt::format("the prefix of {} tokens stays", fixed), tokens);
    case PolicySpec::Kind::kH2o:
      return CheckBudget(
          policy, "heavy", policy.heavy, budget, fixed + policy.StaysOf(tokens) + 1,
          fmt::format("recent={} and the prefix of {} tokens stay", policy.StaysOf(tokens), fixed), tokens);
    case PolicySpec::Kind::kLookM:
      PALIMPSEST_RETURN_IF_ERROR(CheckImages(policy, tokens - question, fixed));
      return CheckBudget(
          policy, "budget", policy.budget, budget, fixed + policy.recent.Of(tokens) + 1,
          fmt::format("recent={} and the prefix of {} tokens stay", policy.recent.Of(tokens), fixed), tokens);
    case PolicySpec::Kind::kRoCo: {
      const int64_t stay = policy.StaysOf(tokens);
      return CheckBudget(
          policy, "budget", policy.budget, budget, fixed + stay + 1,
          fmt::format("{} volatile, first and last tokens and the prefix of {} stay", stay, fixed), tokens);
    }
    case PolicySpec::Kind::kStreaming:
      return CheckBudget(policy, "recent", policy.recent, budget, std::max(fixed, policy.sink) + 1,
                         fmt::format("sink={} and the prefix of {} tokens stay", policy.sink, fixed), tokens);
    case PolicySpec::Kind::kInfiniPot:
      return CheckPot(policy, tokens, catalyst, fixed);
  }
  return absl::OkStatus();
}

absl::Status CheckQuestionStays(const PolicySpec& policy, int64_t tokens, int64_t budget, int64_t fixed,
                                int64_t question) {
  const int64_t stay = std::max(fixed, std::min(SinksOf(policy), tokens - question)) + question;
  if (question <= 0 || budget > stay) return absl::OkStatus();
  return InvalidArgument(
      "policy {}: a budget of {} tokens, but the prefix, first tokens and the question, which it sees, stay "
      "and have {}: give more than {}",
      policy.name(), budget, stay, stay);
}

}  // namespace palimpsest
