#include "kernels/cpu/simd_portable.h"
//
#include "kernels/cpu/codes_portable.h"
#include "kernels/cpu/digest_q2_impl.h"
#include "kernels/cpu/isa_table.h"

namespace palimpsest::cpu {

const IsaKernels& PortableKernels() {
  static const IsaKernels kernels = MakeKernels("portable");
  return kernels;
}

}  // namespace palimpsest::cpu
