#include "proto/base/status.h"
#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

// What picks for infinipot beside novelty: cap, or another policy with its own defaults.
std::unique_ptr<CompressionPolicy> MakeDistiller(const PolicySpec& spec) {
  if (spec.score == "snapkv") return MakeSnapKv({.kind = PolicySpec::Kind::kSnapKv});
  if (spec.score == "h2o") return MakeH2o(DefaultPolicy(PolicySpec::Kind::kH2o));
  if (spec.score == "lookm") return MakeLookM(DefaultPolicy(PolicySpec::Kind::kLookM));
  if (spec.score == "tova") return MakeTova(DefaultPolicy(PolicySpec::Kind::kTova));
  if (spec.score == "roco") return MakeRoCo(DefaultPolicy(PolicySpec::Kind::kRoCo));
  if (spec.score == "streaming") {
    return MakeStreaming({.kind = PolicySpec::Kind::kStreaming}, /*slides=*/false);
  }
  if (spec.score == "random") return MakeRandom({.kind = PolicySpec::Kind::kRandom});
  PALIMPSEST_CHECK(spec.score == "cap", "no score {}: ParsePolicy lets none pass", spec.score);
  return MakeCap(spec);
}

}  // namespace

std::unique_ptr<CompressionPolicy> MakePolicy(const PolicySpec& spec) {
  switch (spec.kind) {
    case PolicySpec::Kind::kAuto:
    case PolicySpec::Kind::kFull:
      return nullptr;
    case PolicySpec::Kind::kSnapKv:
      return MakeSnapKv(spec);
    case PolicySpec::Kind::kInfiniPot:
      return MakeDistiller(spec);
    case PolicySpec::Kind::kStreaming:
      return MakeStreaming(spec, /*slides=*/true);
    case PolicySpec::Kind::kRandom:
      return MakeRandom(spec);
    case PolicySpec::Kind::kH2o:
      return MakeH2o(spec);
    case PolicySpec::Kind::kLookM:
      return MakeLookM(spec);
    case PolicySpec::Kind::kTova:
      return MakeTova(spec);
    case PolicySpec::Kind::kRoCo:
      return MakeRoCo(spec);
  }
  return nullptr;
}

}  // namespace palimpsest
