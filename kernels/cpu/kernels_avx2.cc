#include "kernels/cpu/simd_avx2.h"
//
#include "kernels/cpu/codes_avx2.h"
#include "kernels/cpu/digest_q2_impl.h"
#include "kernels/cpu/isa_table.h"

namespace palimpsest::cpu {

const IsaKernels& Avx2Kernels() {
  static const IsaKernels kernels = MakeKernels("avx2");
  return kernels;
}

}  // namespace palimpsest::cpu
