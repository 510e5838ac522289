#include "proto/base/status.h"
#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

// What picks for infinipot beside novelty: cap, or another policy with its own defaults.
std::unique_ptr<CompressionPolicy> MakeDistiller(const PolicySpec& spec) {
  if (spec.score == "cap") return MakeCap(spec);
  const absl::StatusOr<PolicySpec> other = ParsePolicy(spec.score);
  PALIMPSEST_CHECK(other.ok(), "no score {}: ParsePolicy lets none pass", spec.score);
  if (other->kind == PolicySpec::Kind::kStreaming) return MakeStreaming(*other, /*slides=*/false);
  return MakePolicy(*other);
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
    case PolicySpec::Kind::kKnorm:
      return MakeKnorm(spec);
    case PolicySpec::Kind::kKeyDiff:
      return MakeKeyDiff(spec);
    case PolicySpec::Kind::kExpected:
      return MakeExpected(spec);
    case PolicySpec::Kind::kSirLlm:
      return MakeSirLlm(spec);
    case PolicySpec::Kind::kPyramidKv:
      return MakePyramidKv(spec);
    case PolicySpec::Kind::kAdaKv:
      return MakeAdaKv(spec);
    case PolicySpec::Kind::kChunkKv:
      return MakeChunkKv(spec);
    case PolicySpec::Kind::kCriticalKv:
      return MakeCriticalKv(spec);
    case PolicySpec::Kind::kKvZip:
      return MakeKvZip(spec);
  }
  return nullptr;
}

}  // namespace palimpsest
