#include "kernels/backend.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_features.h"
#include "proto/base/status.h"

namespace palimpsest {

std::vector<std::string> AvailableIsas() {
  std::vector<std::string> isas;
  if (cpu::HasAvx512()) isas.push_back("avx512");
  if (cpu::HasAvx2()) isas.push_back("avx2");
  isas.push_back("portable");
  return isas;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options) {
  const std::string isa = options.isa == "auto" ? AvailableIsas().front() : options.isa;
  if (isa == "avx512") {
    if (!cpu::HasAvx512()) {
      return FailedPrecondition("device.isa avx512: this processor lacks {}; use auto",
                                cpu::MissingForAvx512());
    }
    return std::make_unique<cpu::CpuBackend>(cpu::Avx512Kernels(), options.threads);
  }
  if (isa == "avx2") {
    if (!cpu::HasAvx2())
      return FailedPrecondition("device.isa avx2: this processor lacks AVX2 or FMA; use auto");
    return std::make_unique<cpu::CpuBackend>(cpu::Avx2Kernels(), options.threads);
  }
  if (isa == "portable") return std::make_unique<cpu::CpuBackend>(cpu::PortableKernels(), options.threads);
  return InvalidArgument("device.isa {}: use auto, avx512, avx2 or portable", isa);
}

}  // namespace palimpsest
