// What compression needs of the CPU: scores of keys, packing of tiles, losses of tokens.
#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {

void CpuBackend::ScoreKeys(const ScoreKeysArgs&) { PALIMPSEST_CHECK(false, "not written yet"); }
void CpuBackend::GatherKv(const GatherKvArgs&) { PALIMPSEST_CHECK(false, "not written yet"); }
void CpuBackend::TokenLosses(const TokenLossesArgs&) { PALIMPSEST_CHECK(false, "not written yet"); }

}  // namespace palimpsest::cpu
