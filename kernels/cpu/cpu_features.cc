#include "kernels/cpu/cpu_features.h"

namespace palimpsest::cpu {

#if defined(__x86_64__)
bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

std::string MissingForAvx512() {
  std::string missing;
  const auto need = [&](bool has, const char* name) {
    if (!has) missing += missing.empty() ? name : std::string(", ") + name;
  };
  need(__builtin_cpu_supports("avx512f"), "avx512f");
  need(__builtin_cpu_supports("avx512bw"), "avx512bw");
  need(__builtin_cpu_supports("avx512dq"), "avx512dq");
  need(__builtin_cpu_supports("avx512vl"), "avx512vl");
  need(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
  need(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
  return missing;
}
#else
bool HasAvx2() { return false; }
std::string MissingForAvx512() { return "an x86-64 processor"; }
#endif

bool HasAvx512() { return MissingForAvx512().empty(); }

}  // namespace palimpsest::cpu
