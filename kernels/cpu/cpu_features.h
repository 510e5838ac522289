// Which instruction sets this machine can run.
#pragma once

#include <string>
#include <vector>

namespace palimpsest::cpu {

bool HasAvx512();  // F, BW, DQ, VL, VNNI and BF16
bool HasAvx2();    // AVX2 and FMA
// What of HasAvx512 is missing, for error messages; empty if nothing.
std::string MissingForAvx512();

}  // namespace palimpsest::cpu
