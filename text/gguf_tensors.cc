#include "text/gguf_tensors.h"

#include "absl/container/flat_hash_set.h"
#include "proto/base/checked_math.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/gguf_format.h"

namespace palimpsest {
namespace {

constexpr uint64_t kRecordBytesMin =
    8 + 1 + 4 + 8 + 4 + 8;  // name length, name, dimensions, one of them, type, offset

absl::StatusOr<std::vector<int64_t>> ReadShape(GgufCursor& cursor, std::string_view name) {
  PALIMPSEST_ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.Read<uint32_t>("dimension count", name));
  if (dimensions < 1 || dimensions > kGgufDimensionsMax) {
    return InvalidArgument("{}: tensor {} has {} dimensions; expected 1 to {}, the file is damaged",
                           cursor.file(), Quoted(name), dimensions, kGgufDimensionsMax);
  }
  std::vector<int64_t> shape(dimensions);
  CheckedCount elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(const uint64_t size, cursor.Read<uint64_t>("dimensions", name));
    if (size < 1 || size > kGgufDimensionMax) {
      return InvalidArgument("{}: dimension {} of tensor {} is {}; expected 1 to {}, the file is damaged",
                             cursor.file(), i, Quoted(name), size, kGgufDimensionMax);
    }
    shape[i] = static_cast<int64_t>(size);
    elements *= shape[i];
  }
  if (!elements.ok()) {
    return InvalidArgument("{}: tensor {} has more than 2^63 elements, shape [{}]; the file is damaged",
                           cursor.file(), Quoted(name), fmt::join(shape, ", "));
  }
  return shape;
}

absl::StatusOr<GgufTensorRecord> ReadRecord(GgufCursor& cursor) {
  GgufTensorRecord record{};
  GgufTensor& tensor = record.tensor;
  PALIMPSEST_ASSIGN_OR_RETURN(tensor.name, cursor.ReadString(kGgufTensorNameBytesMax, "tensor name", {}));
  PALIMPSEST_ASSIGN_OR_RETURN(tensor.shape, ReadShape(cursor, tensor.name));
  PALIMPSEST_ASSIGN_OR_RETURN(tensor.type, cursor.Read<uint32_t>("type", tensor.name));
  PALIMPSEST_ASSIGN_OR_RETURN(record.offset, cursor.Read<uint64_t>("offset", tensor.name));
  const TensorFormat* format = FindTensorFormat(tensor.type);
  if (format != nullptr && tensor.shape[0] % format->block_elements != 0) {
    return InvalidArgument(
        "{}: rows of tensor {} have {} numbers, no multiple of {}'s block of {}; convert it again",
        cursor.file(), Quoted(tensor.name), tensor.shape[0], format->name, format->block_elements);
  }
  return record;
}

// Bytes of the tensor's data; lost if they pass 2^64. A type we do not know has at least one byte.
CheckedSize DataBytes(const GgufTensor& tensor) {
  const TensorFormat* format = FindTensorFormat(tensor.type);
  if (format == nullptr) return 1;
  return CheckedSize(tensor.elements()) / format->block_elements * format->block_bytes;
}

}  // namespace

int64_t GgufTensor::elements() const {
  CheckedCount elements = 1;
  for (int64_t size : shape) elements *= size;
  return elements.value();  // the directory's reader refused shapes that overflow
}

absl::StatusOr<std::vector<GgufTensorRecord>> ReadTensorRecords(GgufCursor& cursor, uint64_t count) {
  if (count > kGgufTensorsMax || !(CheckedSize(count) * kRecordBytesMin).AtMost(cursor.left())) {
    return InvalidArgument(
        "{}: header promises {} tensors; at most {} and {} bytes each fit the {} bytes left, "
        "the file is damaged",
        cursor.file(), count, kGgufTensorsMax, kRecordBytesMin, cursor.left());
  }
  std::vector<GgufTensorRecord> records;
  records.reserve(count);
  absl::flat_hash_set<std::string_view> names;
  names.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(GgufTensorRecord record, ReadRecord(cursor));
    const std::string_view name = record.tensor.name;
    if (name.empty()) return InvalidArgument("{}: tensor {} of {} has no name", cursor.file(), i, count);
    if (!names.insert(name).second) {
      return InvalidArgument("{}: tensor {} appears twice; convert the model again", cursor.file(),
                             Quoted(name));
    }
    records.push_back(std::move(record));
  }
  return records;
}

absl::Status PlaceTensors(std::string_view file, std::span<const uint8_t> file_bytes, uint64_t data_start,
                          uint64_t alignment, std::vector<GgufTensorRecord>& records) {
  uint64_t previous_end = 0;  // from data_start
  std::string_view previous;
  for (GgufTensorRecord& record : records) {
    GgufTensor& tensor = record.tensor;
    if (record.offset % alignment != 0) {
      return InvalidArgument(
          "{}: tensor {} begins at offset {}, no multiple of the alignment {}; convert it again", file,
          Quoted(tensor.name), record.offset, alignment);
    }
    if (record.offset < previous_end) {
      return InvalidArgument(
          "{}: tensor {} begins at offset {}, before tensor {} ends at {}; the file is damaged", file,
          Quoted(tensor.name), record.offset, Quoted(previous), previous_end);
    }
    const CheckedSize size = DataBytes(tensor);
    const CheckedSize end = CheckedSize(data_start) + record.offset + size;
    if (!end.AtMost(file_bytes.size())) {
      return InvalidArgument(
          "{}: tensor {} ({} [{}]) at offset {} of the data at {} passes the file's {} bytes; "
          "truncated, download it again",
          file, Quoted(tensor.name), TensorTypeName(tensor.type), fmt::join(tensor.shape, ", "),
          record.offset, data_start, file_bytes.size());
    }
    if (FindTensorFormat(tensor.type) != nullptr) {
      tensor.bytes = file_bytes.subspan(data_start + record.offset, size.value());
    }
    previous_end = (end - data_start).value();
    previous = tensor.name;
  }
  return absl::OkStatus();
}

}  // namespace palimpsest
