// The tensor directory of a GGUF file: reads its records, then finds each tensor's bytes in the data that
// follows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/gguf.h"
#include "text/gguf_cursor.h"

namespace palimpsest {

struct GgufTensorRecord {
  GgufTensor tensor;  // bytes still empty
  uint64_t offset;    // from the start of the data, as in the file
};

// Reads `count` records: names unique, dimensions and their product in range, rows whole blocks of their
// type.
absl::StatusOr<std::vector<GgufTensorRecord>> ReadTensorRecords(GgufCursor& cursor, uint64_t count);

// Fills in the bytes of each tensor, which must be aligned, in the order of the directory, not overlapping
// and inside `file_bytes`. The data begins at `data_start`, the first aligned byte after the directory.
absl::Status PlaceTensors(std::string_view file, std::span<const uint8_t> file_bytes, uint64_t data_start,
                          uint64_t alignment, std::vector<GgufTensorRecord>& records);

}  // namespace palimpsest
