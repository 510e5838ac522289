// The policies there are, for MakePolicy alone: one file each.
#pragma once

#include <memory>

#include "worker/compression/policy.h"

namespace palimpsest {

std::unique_ptr<CompressionPolicy> MakeSnapKv(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeCap(const PolicySpec& spec);
// `slides`: while decoding too. In a pot nothing goes before the next distillation.
std::unique_ptr<CompressionPolicy> MakeStreaming(const PolicySpec& spec, bool slides);
std::unique_ptr<CompressionPolicy> MakeRandom(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeH2o(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeLookM(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeTova(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeRoCo(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeKnorm(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeKeyDiff(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeExpected(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeSirLlm(const PolicySpec& spec);
// These build on the scores of SnapKV.
std::unique_ptr<CompressionPolicy> MakePyramidKv(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeAdaKv(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeChunkKv(const PolicySpec& spec);
std::unique_ptr<CompressionPolicy> MakeCriticalKv(const PolicySpec& spec);

std::unique_ptr<CompressionPolicy> MakeKvZip(const PolicySpec& spec);

}  // namespace palimpsest
