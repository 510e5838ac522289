// What the integers of 2-bit digests share (codes_avx2.h, codes_portable.h).
#pragma once

#include <cstdint>

namespace {

// A run's zeros and steps, widened; steps stand 7 bits up, so that the upper half of a product is used well.
struct RunScales {
  alignas(64) int16_t zeros[256], steps[256];
  float zero_scale, step_scale;
};

}  // namespace
