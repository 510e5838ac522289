#include "text/gguf.h"

#include <bit>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "proto/base/checked_math.h"
#include "proto/base/ids.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/gguf_cursor.h"
#include "text/gguf_format.h"
#include "text/gguf_metadata.h"
#include "text/gguf_tensors.h"
#include "text/mapped_file.h"

namespace palimpsest {
namespace {

struct Header {
  uint64_t tensor_count;
  uint64_t metadata_count;
};

absl::Status CheckVersion(const GgufCursor& cursor, uint32_t version) {
  if (version >= kGgufVersionMin && version <= kGgufVersionMax) return absl::OkStatus();
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped >= 1 && swapped <= kGgufVersionMax) {
    return InvalidArgument(
        "{}: a big-endian GGUF file (version {}); convert it to little endian (gguf-convert-endian)",
        cursor.file(), swapped);
  }
  return InvalidArgument("{}: GGUF version {}; versions {} and {} are read, {}", cursor.file(), version,
                         kGgufVersionMin, kGgufVersionMax,
                         version < kGgufVersionMin ? "convert the model again" : "update Palimpsest");
}

absl::StatusOr<Header> ReadHeader(GgufCursor& cursor) {
  if (cursor.left() == 0)
    return InvalidArgument("{}: the file is empty; expected a .gguf model", cursor.file());
  GgufCursor start = cursor;
  const uint64_t shown = std::min<uint64_t>(kGgufMagic.size(), cursor.left());
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bytes, start.ReadBytes(shown, "magic", {}));
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (magic != kGgufMagic) {
    return InvalidArgument("{}: not a GGUF file: starts with {}; expected a .gguf model", cursor.file(),
                           Quoted(magic));
  }
  cursor = start;
  PALIMPSEST_ASSIGN_OR_RETURN(const uint32_t version, cursor.Read<uint32_t>("version", {}));
  PALIMPSEST_RETURN_IF_ERROR(CheckVersion(cursor, version));
  Header header{};
  PALIMPSEST_ASSIGN_OR_RETURN(header.tensor_count, cursor.Read<uint64_t>("tensor count", {}));
  PALIMPSEST_ASSIGN_OR_RETURN(header.metadata_count, cursor.Read<uint64_t>("metadata count", {}));
  return header;
}

class GgufFileImpl : public GgufFile {
 public:
  GgufFileImpl(MappedFile mapping, std::span<const uint8_t> bytes, std::string path)
      : mapping_(std::move(mapping)), bytes_(bytes), path_(std::move(path)) {}

  absl::Status ParseAll() {
    GgufCursor cursor(bytes_, path_);
    PALIMPSEST_ASSIGN_OR_RETURN(const Header header, ReadHeader(cursor));
    PALIMPSEST_ASSIGN_OR_RETURN(metadata_, GgufMetadata::Read(cursor, header.metadata_count));
    PALIMPSEST_ASSIGN_OR_RETURN(const uint64_t alignment, metadata_.Alignment());
    PALIMPSEST_ASSIGN_OR_RETURN(auto records, ReadTensorRecords(cursor, header.tensor_count));
    // The cursor is inside the file and the alignment small: this padding cannot overflow.
    const uint64_t data_start = CheckedSize(cursor.position()).PadTo(alignment).value();
    PALIMPSEST_RETURN_IF_ERROR(PlaceTensors(path_, bytes_, data_start, alignment, records));
    tensors_.reserve(records.size());
    for (GgufTensorRecord& record : records) {
      by_name_.emplace(record.tensor.name, tensors_.size());
      tensors_.push_back(std::move(record.tensor));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> GetInt(std::string_view key) const override { return metadata_.GetInt(key); }
  absl::StatusOr<double> GetFloat(std::string_view key) const override { return metadata_.GetFloat(key); }
  absl::StatusOr<bool> GetBool(std::string_view key) const override { return metadata_.GetBool(key); }
  absl::StatusOr<std::string_view> GetString(std::string_view key) const override {
    return metadata_.GetString(key);
  }
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const override {
    return metadata_.GetStrings(key);
  }
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const override {
    return metadata_.GetInts(key);
  }
  absl::StatusOr<std::vector<float>> GetFloats(std::string_view key) const override {
    return metadata_.GetFloats(key);
  }
  bool Has(std::string_view key) const override { return metadata_.Has(key); }

  std::span<const GgufTensor> tensors() const override { return tensors_; }

  absl::StatusOr<const GgufTensor*> Tensor(std::string_view name) const override {
    if (const auto found = by_name_.find(name); found != by_name_.end()) return &tensors_[found->second];
    // The usual cause: one part of a model that was split into several files.
    if (const auto parts = metadata_.GetInt("split.count"); parts.ok() && *parts > 1) {
      return NotFound(
          "{}: no tensor {} among {}: this is one of {} parts; merge them (llama-gguf-split --merge)", path_,
          Quoted(name), tensors_.size(), *parts);
    }
    return NotFound("{}: no tensor {} among {}; use a complete model of a supported architecture", path_,
                    Quoted(name), tensors_.size());
  }

  const std::string& path() const override { return path_; }
  void ReleasePages() const override { mapping_.ReleasePages(); }

  absl::StatusOr<std::string> ContentHash() const override {
    std::call_once(hash_once_, [this] {
      hash_ = Sha256(std::string_view(reinterpret_cast<const char*>(bytes_.data()), bytes_.size())).ToHex();
    });
    return hash_;
  }

 private:
  const MappedFile mapping_;              // empty when the bytes are the caller's
  const std::span<const uint8_t> bytes_;  // the whole file
  const std::string path_;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string_view, size_t> by_name_;  // index into tensors_

  mutable std::once_flag hash_once_;
  mutable std::string hash_;  // written once, under hash_once_
};

absl::StatusOr<std::shared_ptr<const GgufFile>> Make(MappedFile mapping, std::span<const uint8_t> bytes,
                                                     std::string name) {
  auto file = std::make_shared<GgufFileImpl>(std::move(mapping), bytes, std::move(name));
  PALIMPSEST_RETURN_IF_ERROR(file->ParseAll());
  return std::shared_ptr<const GgufFile>(std::move(file));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  PALIMPSEST_ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Open(path));
  const std::span<const uint8_t> bytes = mapping.bytes();
  return Make(std::move(mapping), bytes, path);
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Parse(std::span<const uint8_t> bytes,
                                                                std::string name) {
  return Make(MappedFile(), bytes, std::move(name));
}

}  // namespace palimpsest
