#include "text/gguf_metadata.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "proto/base/checked_math.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr uint64_t kPairBytesMin = 8 + 1 + 4 + 1;  // key length, key, type, value

template <typename T>
T Load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

bool IsInteger(GgufValueType type) {
  return GgufScalarBytes(type) != 0 && type != GgufValueType::kBool && type != GgufValueType::kFloat32 &&
         type != GgufValueType::kFloat64;
}

std::string TypeName(const GgufValue& value) {
  if (value.type != GgufValueType::kArray) return GgufValueTypeName(value.type);
  return fmt::format("array of {} {}", value.count, GgufValueTypeName(value.element));
}

// Bools that are neither 0 nor 1 mean that the file was written or read askew.
absl::Status CheckBools(const GgufCursor& cursor, std::string_view key, std::span<const uint8_t> bytes) {
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte > 1; });
  if (bad == bytes.end()) return absl::OkStatus();
  return InvalidArgument("{}: bool {} of key {} is {}, neither 0 nor 1; the file is damaged", cursor.file(),
                         bad - bytes.begin(), Quoted(key), *bad);
}

absl::Status SkipStrings(GgufCursor& cursor, std::string_view key, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const auto string = cursor.ReadString(kGgufStringBytesMax, "string array", key);
    PALIMPSEST_RETURN_IF_ERROR(string.status());
  }
  return absl::OkStatus();
}

absl::Status CheckArrayCount(const GgufCursor& cursor, std::string_view key, uint64_t count,
                             uint64_t element_bytes) {
  const uint64_t max = key == kTokensKey ? kGgufVocabularyMax : kGgufArrayElementsMax;
  if (count > max) {
    return InvalidArgument("{}: array {} has {} elements, at most {} are allowed; the file is damaged",
                           cursor.file(), Quoted(key), count, max);
  }
  if (!(CheckedSize(count) * element_bytes).AtMost(cursor.left())) {
    return InvalidArgument(
        "{}: array {} has {} elements of at least {} bytes, but {} bytes are left; "
        "truncated, download it again",
        cursor.file(), Quoted(key), count, element_bytes, cursor.left());
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufValue> ReadArray(GgufCursor& cursor, std::string_view key) {
  PALIMPSEST_ASSIGN_OR_RETURN(const uint32_t number, cursor.Read<uint32_t>("array's element type", key));
  PALIMPSEST_ASSIGN_OR_RETURN(const uint64_t count, cursor.Read<uint64_t>("array's count", key));
  const auto element = static_cast<GgufValueType>(number);
  const uint64_t width = GgufScalarBytes(element);
  GgufValue value{GgufValueType::kArray, element, count, {}};
  if (element == GgufValueType::kString) {
    PALIMPSEST_RETURN_IF_ERROR(CheckArrayCount(cursor, key, count, sizeof(uint64_t)));
    GgufCursor end = cursor;
    PALIMPSEST_RETURN_IF_ERROR(SkipStrings(end, key, count));
    PALIMPSEST_ASSIGN_OR_RETURN(value.payload,
                                cursor.ReadBytes(end.position() - cursor.position(), "array", key));
    return value;
  }
  if (width == 0) {
    return InvalidArgument("{}: array {} has elements of {}; expected a number, bool or string type",
                           cursor.file(), Quoted(key), GgufValueTypeName(element));
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckArrayCount(cursor, key, count, width));
  PALIMPSEST_ASSIGN_OR_RETURN(value.payload,
                              cursor.ReadBytes((CheckedSize(count) * width).value(), "array", key));
  if (element == GgufValueType::kBool) PALIMPSEST_RETURN_IF_ERROR(CheckBools(cursor, key, value.payload));
  return value;
}

absl::StatusOr<GgufValue> ReadValue(GgufCursor& cursor, std::string_view key) {
  PALIMPSEST_ASSIGN_OR_RETURN(const uint32_t number, cursor.Read<uint32_t>("value type", key));
  const auto type = static_cast<GgufValueType>(number);
  if (type == GgufValueType::kArray) return ReadArray(cursor, key);
  GgufValue value{type, type, 1, {}};
  if (type == GgufValueType::kString) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view text,
                                cursor.ReadString(kGgufStringBytesMax, "string", key));
    value.payload = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
    return value;
  }
  if (GgufScalarBytes(type) == 0) {
    return InvalidArgument("{}: key {} has value type {}; types are 0 to 12, the file is damaged",
                           cursor.file(), Quoted(key), number);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(value.payload, cursor.ReadBytes(GgufScalarBytes(type), "value", key));
  if (type == GgufValueType::kBool) PALIMPSEST_RETURN_IF_ERROR(CheckBools(cursor, key, value.payload));
  return value;
}

}  // namespace

absl::StatusOr<GgufMetadata> GgufMetadata::Read(GgufCursor& cursor, uint64_t count) {
  if (count > kGgufMetadataMax || !(CheckedSize(count) * kPairBytesMin).AtMost(cursor.left())) {
    return InvalidArgument(
        "{}: header promises {} metadata keys; at most {} and {} bytes each fit the {} bytes left, "
        "the file is damaged",
        cursor.file(), count, kGgufMetadataMax, kPairBytesMin, cursor.left());
  }
  GgufMetadata metadata;
  metadata.file_ = cursor.file();
  metadata.values_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view key,
                                cursor.ReadString(kGgufKeyBytesMax, "metadata key", {}));
    if (key.empty()) return InvalidArgument("{}: metadata key {} of {} is empty", cursor.file(), i, count);
    PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue value, ReadValue(cursor, key));
    if (!metadata.values_.emplace(key, value).second) {
      return InvalidArgument("{}: metadata key {} appears twice; convert the model again", cursor.file(),
                             Quoted(key));
    }
  }
  return metadata;
}

absl::StatusOr<const GgufValue*> GgufMetadata::Find(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end())
    return NotFound("{}: no metadata key {} among {}", file_, Quoted(key), values_.size());
  return &found->second;
}

absl::Status GgufMetadata::WrongType(std::string_view key, const GgufValue& value,
                                     std::string_view expected) const {
  return InvalidArgument("{}: metadata key {} is {}, expected {}; convert the model again", file_,
                         Quoted(key), TypeName(value), expected);
}

absl::StatusOr<const GgufValue*> GgufMetadata::FindArray(std::string_view key,
                                                         std::string_view expected) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (value->type != GgufValueType::kArray) return WrongType(key, *value, expected);
  return value;
}

absl::StatusOr<int64_t> GgufMetadata::ToInt(std::string_view key, GgufValueType type,
                                            const uint8_t* number) const {
  switch (type) {
    case GgufValueType::kUint8:
      return Load<uint8_t>(number);
    case GgufValueType::kInt8:
      return Load<int8_t>(number);
    case GgufValueType::kUint16:
      return Load<uint16_t>(number);
    case GgufValueType::kInt16:
      return Load<int16_t>(number);
    case GgufValueType::kUint32:
      return Load<uint32_t>(number);
    case GgufValueType::kInt32:
      return Load<int32_t>(number);
    case GgufValueType::kInt64:
      return Load<int64_t>(number);
    default:
      break;
  }
  PALIMPSEST_CHECK(type == GgufValueType::kUint64, "{} is no integer", GgufValueTypeName(type));
  const CheckedCount value(Load<uint64_t>(number));
  if (value.ok()) return value.value();
  return InvalidArgument("{}: metadata key {} holds {}, more than an int64; the file is damaged", file_,
                         Quoted(key), Load<uint64_t>(number));
}

absl::StatusOr<int64_t> GgufMetadata::GetInt(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (!IsInteger(value->type)) return WrongType(key, *value, "an integer");
  return ToInt(key, value->type, value->payload.data());
}

absl::StatusOr<double> GgufMetadata::GetFloat(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (value->type == GgufValueType::kFloat32) return Load<float>(value->payload.data());
  if (value->type == GgufValueType::kFloat64) return Load<double>(value->payload.data());
  return WrongType(key, *value, "f32 or f64");
}

absl::StatusOr<bool> GgufMetadata::GetBool(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (value->type != GgufValueType::kBool) return WrongType(key, *value, "bool");
  return value->payload[0] != 0;
}

absl::StatusOr<std::string_view> GgufMetadata::GetString(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (value->type != GgufValueType::kString) return WrongType(key, *value, "string");
  return std::string_view(reinterpret_cast<const char*>(value->payload.data()), value->payload.size());
}

absl::StatusOr<std::vector<std::string_view>> GgufMetadata::GetStrings(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key, "array of string"));
  if (value->element != GgufValueType::kString) return WrongType(key, *value, "array of string");
  // Checked again on the way: the mapping shows a file that someone may have written to since it was opened.
  GgufCursor cursor(value->payload, file_);
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(const auto string,
                                cursor.ReadString(kGgufStringBytesMax, "string array", key));
    strings.push_back(string);
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufMetadata::GetInts(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key, "array of integers"));
  if (!IsInteger(value->element)) return WrongType(key, *value, "array of integers");
  const uint64_t width = GgufScalarBytes(value->element);
  std::vector<int64_t> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(numbers[i], ToInt(key, value->element, value->payload.data() + i * width));
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> GgufMetadata::GetFloats(std::string_view key) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key, "array of f32"));
  if (value->element != GgufValueType::kFloat32) return WrongType(key, *value, "array of f32");
  std::vector<float> numbers(value->count);
  if (!numbers.empty()) std::memcpy(numbers.data(), value->payload.data(), value->payload.size());
  return numbers;
}

absl::StatusOr<uint64_t> GgufMetadata::Alignment() const {
  static constexpr std::string_view kKey = "general.alignment";
  if (!Has(kKey)) return kGgufAlignmentDefault;
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t alignment, GetInt(kKey));
  const auto bytes = static_cast<uint64_t>(alignment);  // a negative one is far above the limit
  if (bytes < kGgufAlignmentMin || bytes > kGgufAlignmentMax || !std::has_single_bit(bytes)) {
    return InvalidArgument("{}: general.alignment is {}; expected a power of two from {} to {}", file_,
                           alignment, kGgufAlignmentMin, kGgufAlignmentMax);
  }
  return bytes;
}

}  // namespace palimpsest
