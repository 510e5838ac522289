#include "kernels/cpu/simd_portable.h"
//
#include "kernels/cpu/kernels_impl.h"

namespace palimpsest::cpu {

const IsaKernels& PortableKernels() {
  static const IsaKernels kernels = MakeKernels("portable");
  return kernels;
}

}  // namespace palimpsest::cpu
