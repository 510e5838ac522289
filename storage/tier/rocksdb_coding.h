// Keys and directory entries of the tier on SSD as bytes; the formats are in rocksdb_database.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "storage/tier/rocksdb_database.h"

namespace palimpsest {

std::string PartKey(uint64_t batch, uint32_t part, uint32_t place);
std::string DirectoryKey(const StoredValue& value);
std::string DirectoryEntry(const StoredValue& value);
// The lowest key of a batch, in any family.
std::string BatchBegin(uint64_t batch);

// What is too short counts as zeros: a key of ours never is, and a damaged one names no batch that exists.
uint64_t BatchOfKey(std::string_view key);
std::pair<uint32_t, uint32_t> PartOfKey(std::string_view key);  // part, place

// nullopt: not an entry of ours, or one that no Put could have made.
std::optional<StoredValue> ParseDirectory(std::string_view key, std::string_view entry);

}  // namespace palimpsest
