// The numbers of the GGUF format: value types, tensor types and the limits that this reader holds files to.
//
// Source: the GGUF specification (ggml-org/ggml docs/gguf.md); block sizes as in the `gguf` Python package.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace palimpsest {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr uint32_t kGgufVersionMin = 2, kGgufVersionMax = 3;

// Limits. Real models use about 50 keys, 10^3 tensors and 64-byte names, so a file past these is hostile or
// damaged.
inline constexpr uint64_t kGgufMetadataMax = 65'536;
inline constexpr uint64_t kGgufTensorsMax = 65'536;
inline constexpr uint64_t kGgufKeyBytesMax = 64 << 10;
inline constexpr uint64_t kGgufStringBytesMax = 1 << 20;
inline constexpr uint64_t kGgufTensorNameBytesMax = 256;
inline constexpr uint64_t kGgufArrayElementsMax = 1 << 24;
inline constexpr uint64_t kGgufVocabularyMax = 1 << 20;  // tokenizer.ggml.tokens
inline constexpr uint32_t kGgufDimensionsMax = 4;
inline constexpr uint64_t kGgufDimensionMax = uint64_t{1} << 31;
inline constexpr uint64_t kGgufAlignmentDefault = 32, kGgufAlignmentMin = 8, kGgufAlignmentMax = 64 << 10;

enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
// Name for messages ("u32", "string"); "type 77" for numbers that are no value type.
std::string GgufValueTypeName(GgufValueType type);
// Bytes of one number of `type`; 0 for string, array and unknown.
uint64_t GgufScalarBytes(GgufValueType type);

struct TensorFormat {
  uint32_t type;
  std::string_view name;    // as users write it
  uint32_t block_elements;  // numbers per block; rows hold whole blocks
  uint32_t block_bytes;
};
// The format of a tensor type, also of those that we cannot compute with; nullptr for a number that we do not
// know.
const TensorFormat* FindTensorFormat(uint32_t type);

}  // namespace palimpsest
