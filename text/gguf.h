// Reads a GGUF model file (versions 2 and 3, little endian): metadata and tensor directory, tensors as mapped
// bytes.
//
// The file is untrusted: every count, length and offset is checked against a limit (all are in gguf_format.h)
// and against the bytes left before anything is allocated or multiplied: at most 65,536 keys and tensors, 1
// to 4 dimensions of 1..2^31, keys <= 64 KiB, strings <= 1 MiB, vocabulary <= 2^20; offsets aligned, sorted,
// not overlapping, inside the file. Strings are bytes as they stand: nothing here says that they are UTF-8.
//
// Owns   : the mapping; views (string_view, span) stay valid as long as the GgufFile.
// Errors : InvalidArgument "PATH: what, where, the numbers; what to do". NotFound if the file does not exist,
//          PermissionDenied, Unavailable if the system cannot map it.
// Threads: const methods from any thread.
// Source : the GGUF specification (ggml-org/ggml docs/gguf.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

// How a tensor's numbers are stored; the values are the file's own type numbers.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30,
};

// Name as users write it ("Q4_1"); "type 99" for numbers we do not know.
std::string TensorTypeName(uint32_t type);

struct GgufTensor {
  std::string_view name;
  uint32_t type;                   // a TensorType where known
  std::vector<int64_t> shape;      // first dimension contiguous, as in the file: a matrix is {columns, rows}
  std::span<const uint8_t> bytes;  // exactly the tensor's data; empty for types we do not know
  int64_t elements() const;        // product of shape
};

class GgufFile {
 public:
  // Maps `path` read-only and checks all of its header. Opened once: no re-open by path later.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  // The same over bytes in memory (tests, fuzzing); `bytes` must outlive the object.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Parse(std::span<const uint8_t> bytes,
                                                               std::string name);
  virtual ~GgufFile() = default;

  // Typed getters: NotFound if the key is absent, InvalidArgument if its type is another.
  // GetInt and GetInts accept every integer type whose values fit; GetFloat accepts F32 and F64, GetFloats
  // F32 alone. Arrays are decoded at each call (about 20 ns a string): keep what you use often.
  virtual absl::StatusOr<int64_t> GetInt(std::string_view key) const = 0;
  virtual absl::StatusOr<double> GetFloat(std::string_view key) const = 0;
  virtual absl::StatusOr<bool> GetBool(std::string_view key) const = 0;
  virtual absl::StatusOr<std::string_view> GetString(std::string_view key) const = 0;
  virtual absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const = 0;
  virtual absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const = 0;
  virtual absl::StatusOr<std::vector<float>> GetFloats(std::string_view key) const = 0;
  virtual bool Has(std::string_view key) const = 0;

  virtual std::span<const GgufTensor> tensors() const = 0;
  // NotFound names the tensor and the file.
  virtual absl::StatusOr<const GgufTensor*> Tensor(std::string_view name) const = 0;

  virtual const std::string& path() const = 0;
  // SHA-256 of the whole file, hex. Reads all of it the first time (about 0.1 s per 100 MB); later calls are
  // free.
  virtual absl::StatusOr<std::string> ContentHash() const = 0;

  // Gives the memory of mapped pages back once the weights are packed; views stay valid and are read again
  // when they are touched. Nothing happens for bytes that are the caller's.
  virtual void ReleasePages() const = 0;
};

}  // namespace palimpsest
