#include "kernels/cpu/simd_avx512.h"
//
#include "kernels/cpu/int8_avx512.h"

namespace palimpsest::cpu {

const IsaKernels& Avx512Kernels() {
  static const IsaKernels kernels = {
      .name = "avx512",
      .int8 = true,
      .gemm_bf16 = GemmBf16,
      .gemm_int8 = GemmInt8,
      .rms_norm = RmsNorm,
      .rotate = Rotate,
      .round = Round,
      .widen = Widen,
      .attend = Attend,
      .merge = Merge,
      .finish = Finish,
      .quantize_row = QuantizeRow,
      .peak_bf16 = PeakBf16,
      .peak_int8 = PeakInt8,
      .read = ReadAll,
  };
  return kernels;
}

}  // namespace palimpsest::cpu
