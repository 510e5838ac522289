// Expands the block formats of GGUF tensors to float32, exactly as the format defines (no rounding but
// float32's own).
//
// Source: the layouts in ggml's documentation; values checked against the `gguf` Python package.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/gguf.h"

namespace palimpsest {

struct QuantFormat {
  int64_t block_elements;  // numbers per block (1 for F32, F16, BF16)
  int64_t block_bytes;
};
// Unimplemented for types we cannot expand, naming the type and those we can.
absl::StatusOr<QuantFormat> QuantFormatOf(uint32_t type);

// Expands `out.size()` numbers, a multiple of the block, from the start of `bytes`, which may hold more
// (later rows). InvalidArgument if `out` is no multiple or `bytes` holds fewer; `out` is untouched unless OK.
// No alignment is needed.
absl::Status Dequantize(uint32_t type, std::span<const uint8_t> bytes, std::span<float> out);

}  // namespace palimpsest
