// A policy as text, all parameters in a fixed order.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "proto/base/policy_names.h"
#include "proto/base/policy_spec.h"

namespace palimpsest {
namespace {

using namespace policy_names;
using Kind = PolicySpec::Kind;

std::string TextOf(const Amount& amount) {
  return fmt::format("{}{}", amount.value, amount.percent ? "%" : "");
}

std::string ImagesText(const PolicySpec& policy) {
  std::string text;
  for (const PolicySpec::Image& image : policy.images) {
    text += fmt::format("{}{}-{}", text.empty() ? ",images=" : "/", image.first, image.end);
  }
  return text;
}

// Said only where there is some: what merges nothing is the same policy with and without the word.
std::string MergeText(const PolicySpec& policy) {
  if (policy.merge == PolicySpec::Merge::kNone && policy.kind != Kind::kLookM) return "";
  return fmt::format(",merge={}", NameOf(kMerges, policy.merge));
}

// As that of merging.
std::string DecodeText(const PolicySpec& policy) {
  return policy.evicts() ? fmt::format(",decode={}", NameOf(kDecodes, policy.decode)) : "";
}

std::string SnapKvText(const PolicySpec& policy) {
  return fmt::format("{}:budget={},window={},kernel={},pool={},reduce={},order={},divisor={}", policy.name(),
                     TextOf(policy.budget), policy.window, policy.kernel, NameOf(kPools, policy.pool),
                     NameOf(kReduces, policy.reduce), NameOf(kOrders, policy.order),
                     NameOf(kDivisors, policy.divisor));
}

std::string CatalystText(const PolicySpec& policy) {
  switch (policy.catalyst) {
    case PolicySpec::Catalyst::kDefault:
      return "catalyst=default";
    case PolicySpec::Catalyst::kFile:
      return "catalyst=@" + policy.catalyst_file;
    case PolicySpec::Catalyst::kIds:
      return fmt::format("catalyst_ids={}", fmt::join(policy.catalyst_ids, "/"));
    case PolicySpec::Catalyst::kQuestion:
      return "catalyst=question";
  }
  return "";
}

// All but how it is written on the device.
std::string SelectionText(const PolicySpec& policy) {
  std::string name = policy.name();
  switch (policy.kind) {
    case Kind::kAuto:
    case Kind::kFull:
      return name;
    case Kind::kSnapKv:
      return SnapKvText(policy) + (policy.target > 0 ? fmt::format(",target={}", policy.target) : "") +
             MergeText(policy);
    case Kind::kInfiniPot: {
      std::string line =
          fmt::format("{}:pot={},keep={},alpha={},score={}", name, TextOf(policy.pot),
                      policy.keep.value == 0 ? "half" : TextOf(policy.keep), policy.alpha, policy.score);
      if (policy.score != "cap") return line;
      return line + fmt::format(",reduce={},{}", NameOf(kReduces, policy.reduce), CatalystText(policy));
    }
    case Kind::kStreaming:
      return fmt::format("{}:sink={},recent={}", name, policy.sink, TextOf(policy.recent));
    case Kind::kRandom:
      return fmt::format("{}:budget={},seed={}{}", name, TextOf(policy.budget), policy.seed,
                         MergeText(policy));
    case Kind::kH2o:
      return fmt::format("{}:heavy={},recent={},normalize={},reduce={}{}{}", name, TextOf(policy.heavy),
                         TextOf(policy.recent), NameOf(kNormalizes, policy.normalize),
                         NameOf(kReduces, policy.reduce), DecodeText(policy), MergeText(policy));
    case Kind::kLookM:
      return fmt::format("{}:budget={},recent={},text_prior={}{}{}", name, TextOf(policy.budget),
                         TextOf(policy.recent), NameOf(kTextPriors, policy.text_prior), ImagesText(policy),
                         MergeText(policy));
    case Kind::kTova:
      return fmt::format("{}:budget={},last={}{}{}", name, TextOf(policy.budget), NameOf(kLasts, policy.last),
                         DecodeText(policy), MergeText(policy));
    case Kind::kRoCo:
      return fmt::format("{}:budget={},volatile={},sink={},recent={}{}{}", name, TextOf(policy.budget),
                         TextOf(policy.volatile_tokens), policy.sink, TextOf(policy.recent),
                         DecodeText(policy), MergeText(policy));
    case Kind::kKnorm:
      return fmt::format("{}:budget={}{}", name, TextOf(policy.budget), MergeText(policy));
    case Kind::kKeyDiff:
      return fmt::format("{}:budget={},keys={}{}", name, TextOf(policy.budget), NameOf(kKeys, policy.keys),
                         MergeText(policy));
    case Kind::kExpected:
      return fmt::format("{}:budget={},sink={},future={},covariance={},values={},epsilon={}{}", name,
                         TextOf(policy.budget), policy.sink, policy.future,
                         NameOf(kSwitch, policy.covariance), NameOf(kSwitch, policy.values), policy.epsilon,
                         MergeText(policy));
    case Kind::kSirLlm:
      return fmt::format("{}:budget={},sink={},recent={}{}", name, TextOf(policy.budget), policy.sink,
                         policy.recent.value, MergeText(policy));
    case Kind::kPyramidKv:
      return SnapKvText(policy) + fmt::format(",beta={}", policy.beta) + MergeText(policy);
    case Kind::kAdaKv:
      return SnapKvText(policy) + fmt::format(",floor={},share={}{}", policy.floor,
                                              NameOf(kShares, policy.share), MergeText(policy));
    case Kind::kChunkKv:
      return SnapKvText(policy) + fmt::format(",chunk={}{}", policy.chunk, MergeText(policy));
    case Kind::kCriticalKv:
      return SnapKvText(policy) +
             fmt::format(",first={},epsilon={}{}", policy.first, policy.epsilon, MergeText(policy));
    case Kind::kKvZip:
      return fmt::format("{}:budget={},chunk={},attend={}{}", name, TextOf(policy.budget), policy.chunk,
                         NameOf(kAttends, policy.attend), MergeText(policy));
  }
  return name;
}

}  // namespace

std::string PolicyText(const PolicySpec& policy) {
  std::string selection = SelectionText(policy);
  if (policy.residual_tokens() == 0) return selection;
  return fmt::format("{}{}kv={},residual={}", selection, policy.kind == Kind::kFull ? ':' : ',',
                     NameOf(kResidents, policy.kv), policy.residual);
}

}  // namespace palimpsest
