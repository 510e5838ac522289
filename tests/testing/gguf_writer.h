// Writes small GGUF files, whole or wrong on purpose, for tests that need a model, a vocabulary or a bad
// file.
//
//   GgufWriter writer;
//   writer.Add("general.architecture", "llama");
//   writer.Add("llama.block_count", uint32_t{2});           // the C++ type is the file's type
//   writer.AddArray<std::string>("tokenizer.ggml.tokens", {"a", "b"});
//   writer.AddF32("token_embd.weight", {4, 2}, values);     // {columns, rows}
//   const std::vector<uint8_t> file = writer.Bytes();       // or writer.Write(path)
//
// Nothing is checked: what the reader must refuse can be written, by the levers at the end of the class.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "text/gguf.h"
#include "text/gguf_format.h"

namespace palimpsest {

template <typename T>
concept GgufNumber = std::is_arithmetic_v<T> && sizeof(T) <= 8;

class GgufWriter {
 public:
  template <GgufNumber T>
  void Add(std::string_view key, T value) {
    std::string payload;
    Append(payload, value);
    AddRaw(key, TypeOf<T>(), payload);
  }
  void Add(std::string_view key, std::string_view value);
  void Add(std::string_view key, const char* value) { Add(key, std::string_view(value)); }  // not as a bool

  // T: a number, bool or std::string.
  template <typename T>
  void AddArray(std::string_view key, const std::vector<T>& values) {
    std::string payload;
    for (const auto& value : values) {
      if constexpr (std::is_same_v<T, std::string>) {
        AppendString(payload, value);
      } else {
        Append(payload, static_cast<T>(value));
      }
    }
    AddRawArray(key, TypeOf<T>(), values.size(), payload);
  }

  // `bytes` become the tensor's data, whatever the shape says. Shape: first dimension contiguous.
  void AddTensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type,
                 std::span<const uint8_t> bytes);
  void AddTensor(std::string_view name, std::vector<uint64_t> shape, TensorType type,
                 std::span<const uint8_t> bytes) {
    AddTensor(name, std::move(shape), static_cast<uint32_t>(type), bytes);
  }
  void AddF32(std::string_view name, std::vector<uint64_t> shape, std::span<const float> values);

  std::vector<uint8_t> Bytes() const;
  absl::Status Write(const std::string& path) const;

  // Default 32; another value is also written as general.alignment.
  void SetAlignment(uint32_t bytes);

  // Levers for files that are wrong.
  void SetMagic(std::string_view magic) { magic_ = magic; }
  void SetVersion(uint32_t version) { version_ = version; }
  void SetTensorCount(uint64_t count) { tensor_count_ = count; }
  void SetMetadataCount(uint64_t count) { metadata_count_ = count; }
  void SetTensorOffset(std::string_view name,
                       uint64_t offset);  // as the directory says; the data stay where they are
  void AddRaw(std::string_view key, GgufValueType type, std::string_view payload);
  void AddRawArray(std::string_view key, GgufValueType element, uint64_t count, std::string_view payload);

  template <typename T>
  static void Append(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void AppendString(std::string& out, std::string_view text);

 private:
  template <typename T>
  static constexpr GgufValueType TypeOf() {
    if constexpr (std::is_same_v<T, std::string>) return GgufValueType::kString;
    if constexpr (std::is_same_v<T, bool>) return GgufValueType::kBool;
    if constexpr (std::is_floating_point_v<T>) {
      return sizeof(T) == 4 ? GgufValueType::kFloat32 : GgufValueType::kFloat64;
    }
    constexpr bool kSigned = std::is_signed_v<T>;
    switch (sizeof(T)) {
      case 1:
        return kSigned ? GgufValueType::kInt8 : GgufValueType::kUint8;
      case 2:
        return kSigned ? GgufValueType::kInt16 : GgufValueType::kUint16;
      case 4:
        return kSigned ? GgufValueType::kInt32 : GgufValueType::kUint32;
      default:
        return kSigned ? GgufValueType::kInt64 : GgufValueType::kUint64;
    }
  }

  struct TensorToWrite {
    std::string name;
    std::vector<uint64_t> shape;
    uint32_t type;
    std::string bytes;
    uint64_t offset;
  };

  std::string magic_ = std::string(kGgufMagic);
  uint32_t version_ = kGgufVersionMax;
  uint64_t alignment_ = kGgufAlignmentDefault;
  std::optional<uint64_t> tensor_count_, metadata_count_;
  std::string metadata_;  // the pairs as in the file
  uint64_t pairs_ = 0;
  std::vector<TensorToWrite> tensors_;
};

// What it wrote, read again: a file that owns its bytes. `name` is for errors; the file must be valid.
std::shared_ptr<const GgufFile> ReadBack(const GgufWriter& writer, const std::string& name);

// A valid file with a scalar "s.TYPE" and an array "a.TYPE" of every value type, and tensors of several
// types. The reader's tests and the fuzzer's seeds begin with it.
GgufWriter SampleGguf();

}  // namespace palimpsest
