#include "kernels/cpu/simd_avx2.h"
//
#include "kernels/cpu/kernels_impl.h"

namespace palimpsest::cpu {

const IsaKernels& Avx2Kernels() {
  static const IsaKernels kernels = {
      .name = "avx2",
      .int8 = false,
      .gemm_bf16 = GemmBf16,
      .gemm_int8 = nullptr,
      .rms_norm = RmsNorm,
      .rotate = Rotate,
      .round = Round,
      .widen = Widen,
      .attend = Attend,
      .merge = Merge,
      .finish = Finish,
      .quantize_row = nullptr,
      .peak_bf16 = PeakBf16,
      .peak_int8 = nullptr,
      .read = ReadAll,
  };
  return kernels;
}

}  // namespace palimpsest::cpu
