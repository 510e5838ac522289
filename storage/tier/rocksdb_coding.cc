#include "storage/tier/rocksdb_coding.h"

#include <cstring>

namespace palimpsest {
namespace {

constexpr size_t kDirectoryKeyBytes = 8 + 1 + 4, kEntryBytes = 32 + 4 + 8 + 8;
constexpr uint64_t kValueBytesMax = 1ull << 40;  // no Put came near; larger is damage

template <typename T>
void Append(std::string& to, T number) {
  for (size_t shift = 8 * sizeof(T); shift > 0; shift -= 8) to += static_cast<char>(number >> (shift - 8));
}

template <typename T>
T Read(std::string_view from, size_t at) {
  T number = 0;
  for (size_t i = at; i < at + sizeof(T); ++i) {
    number = static_cast<T>((number << 8) | (i < from.size() ? static_cast<uint8_t>(from[i]) : 0));
  }
  return number;
}

}  // namespace

std::string BatchBegin(uint64_t batch) {
  std::string key;
  Append(key, batch);
  return key;
}

std::string PartKey(uint64_t batch, uint32_t part, uint32_t place) {
  std::string key = BatchBegin(batch);
  Append(key, part);
  Append(key, place);
  return key;
}

std::string DirectoryKey(const StoredValue& value) {
  std::string key = BatchBegin(value.batch);
  key += static_cast<char>(value.key.kind);
  Append(key, value.place);
  return key;
}

std::string DirectoryEntry(const StoredValue& value) {
  std::string entry(reinterpret_cast<const char*>(value.key.id.bytes.data()), value.key.id.bytes.size());
  Append(entry, value.parts);
  Append(entry, value.part_bytes);
  Append(entry, value.batch_bytes);
  return entry;
}

uint64_t BatchOfKey(std::string_view key) { return Read<uint64_t>(key, 0); }

std::pair<uint32_t, uint32_t> PartOfKey(std::string_view key) {
  return {Read<uint32_t>(key, 8), Read<uint32_t>(key, 12)};
}

std::optional<StoredValue> ParseDirectory(std::string_view key, std::string_view entry) {
  if (key.size() != kDirectoryKeyBytes || entry.size() != kEntryBytes) return std::nullopt;
  const auto kind = static_cast<uint8_t>(key[8]);
  if (kind >= kValueKinds) return std::nullopt;
  BlockId id;
  std::memcpy(id.bytes.data(), entry.data(), id.bytes.size());
  StoredValue value = {.key = {id, static_cast<ValueKind>(kind)},
                       .batch = BatchOfKey(key),
                       .place = Read<uint32_t>(key, 9),
                       .parts = Read<uint32_t>(entry, 32),
                       .part_bytes = Read<uint64_t>(entry, 36),
                       .batch_bytes = Read<uint64_t>(entry, 44)};
  const bool possible = value.parts > 0 && value.part_bytes > 0 && value.batch_bytes <= kValueBytesMax &&
                        value.part_bytes <= value.batch_bytes / value.parts;
  return possible ? std::optional(value) : std::nullopt;
}

}  // namespace palimpsest
