// All kernels of one instruction set as a table; a simd_*.h and a digest_q2_*.h are included before this
// file.
#pragma once

#include "kernels/cpu/compression_impl.h"
#include "kernels/cpu/digest_build_impl.h"
#include "kernels/cpu/digest_score_impl.h"
#include "kernels/cpu/kernels_impl.h"

namespace {

using palimpsest::cpu::IsaKernels;

// The table of this instruction set, without the int8 class.
inline IsaKernels MakeKernels(const char* name) {
  return {
      .name = name,
      .int8 = false,
      .wide_left = sizeof(Left) == sizeof(float),
      .gemm_bf16 = GemmBf16,
      .gemm_int8 = nullptr,
      .rms_norm = RmsNorm,
      .rotate = Rotate,
      .round = Round,
      .widen = Widen,
      .attend = Attend,
      .decode_tile = DecodeTile,
      .merge = Merge,
      .finish = Finish,
      .score_sums = ScoreSums,
      .score_weights = ScoreWeights,
      .factors = Factors,
      .sum_columns = SumColumns,
      .match = Match,
      .sum_exp = SumExp,
      .digest_q2 = DigestQ2,
      .digest_boxes = DigestBoxes,
      .score_q2 = ScoreQ2,
      .score_exact = ScoreExact,
      .score_boxes = ScoreBoxes,
      .quantize_row = nullptr,
      .peak_bf16 = PeakBf16,
      .peak_int8 = nullptr,
      .read = ReadAll,
  };
}

}  // namespace
