// Reads little-endian numbers and strings from untrusted bytes, front to back, never past their end.
//
// Owns   : nothing; `bytes` and `file` outlive the cursor and every view it gives.
// Errors : InvalidArgument that names the file, what was being read, of which object, and the numbers.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/gguf_format.h"

namespace palimpsest {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they stand in the file");

class GgufCursor {
 public:
  GgufCursor(std::span<const uint8_t> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  std::string_view file() const { return file_; }
  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  // `what` is a literal ("type"); `object` is the key or tensor it belongs to, empty for the header.
  absl::StatusOr<std::span<const uint8_t>> ReadBytes(uint64_t count, std::string_view what,
                                                     std::string_view object) {
    if (count > left()) return Truncated(count, what, object);
    const auto view = bytes_.subspan(position_, count);
    position_ += count;
    return view;
  }

  template <typename T>
  absl::StatusOr<T> Read(std::string_view what, std::string_view object) {
    if (sizeof(T) > left()) return Truncated(sizeof(T), what, object);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  // A length (u64) and that many bytes; the length is held to `max_bytes` before it is used.
  absl::StatusOr<std::string_view> ReadString(uint64_t max_bytes, std::string_view what,
                                              std::string_view object) {
    PALIMPSEST_ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what, object));
    if (size > max_bytes) return TooLong(size, max_bytes, what, object);
    PALIMPSEST_ASSIGN_OR_RETURN(const auto view, ReadBytes(size, what, object));
    return std::string_view(reinterpret_cast<const char*>(view.data()), view.size());
  }

 private:
  static std::string Of(std::string_view object) { return object.empty() ? "" : " of " + Quoted(object); }
  absl::Status Truncated(uint64_t need, std::string_view what, std::string_view object) const {
    return InvalidArgument(
        "{}: ends inside the {}{}: {} bytes needed at byte {}, {} left; truncated, download it again", file_,
        what, Of(object), need, position_, left());
  }
  absl::Status TooLong(uint64_t size, uint64_t max, std::string_view what, std::string_view object) const {
    return InvalidArgument(
        "{}: the {}{} before byte {} is {} bytes long, at most {} are allowed; the file is damaged", file_,
        what, Of(object), position_, size, max);
  }

  std::span<const uint8_t> bytes_;
  std::string_view file_;
  uint64_t position_ = 0;  // <= bytes_.size()
};

}  // namespace palimpsest
