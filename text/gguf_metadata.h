// The key-value part of a GGUF file. Values stay views into the file: an array costs nothing until it is
// asked for.
//
// Owns   : the table of keys; keys and values point into the bytes of the cursor it was read from.
// Errors : as GgufFile's getters; NotFound for an absent key, InvalidArgument for another type.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "text/gguf_cursor.h"
#include "text/gguf_format.h"

namespace palimpsest {

struct GgufValue {
  GgufValueType type;
  GgufValueType element;  // of an array; else equal to type
  uint64_t count;         // elements of an array; else 1
  std::span<const uint8_t>
      payload;  // a string: its bytes alone; an array: its elements as they stand in the file
};

class GgufMetadata {
 public:
  // Reads `count` pairs, checking each value to its last byte.
  static absl::StatusOr<GgufMetadata> Read(GgufCursor& cursor, uint64_t count);

  bool Has(std::string_view key) const { return values_.contains(key); }
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloats(std::string_view key) const;

  // general.alignment, checked; the default if absent. Of tensor data, bytes.
  absl::StatusOr<uint64_t> Alignment() const;

 private:
  absl::StatusOr<const GgufValue*> Find(std::string_view key) const;
  absl::StatusOr<const GgufValue*> FindArray(std::string_view key, std::string_view expected) const;
  absl::Status WrongType(std::string_view key, const GgufValue& value, std::string_view expected) const;
  absl::StatusOr<int64_t> ToInt(std::string_view key, GgufValueType type, const uint8_t* number) const;

  std::string file_;  // for messages
  absl::flat_hash_map<std::string_view, GgufValue> values_;
};

}  // namespace palimpsest
