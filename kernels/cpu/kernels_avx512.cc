#include "kernels/cpu/simd_avx512.h"
//
#include "kernels/cpu/digest_q2_avx512.h"
#include "kernels/cpu/int8_avx512.h"
#include "kernels/cpu/isa_table.h"

namespace palimpsest::cpu {

const IsaKernels& Avx512Kernels() {
  static const IsaKernels kernels = [] {
    IsaKernels table = MakeKernels("avx512");
    table.int8 = true;
    table.gemm_int8 = GemmInt8;
    table.quantize_row = QuantizeRow;
    table.peak_int8 = PeakInt8;
    return table;
  }();
  return kernels;
}

}  // namespace palimpsest::cpu
