#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_coding.h"
#include "storage/tier/rocksdb_database.h"

namespace palimpsest {
namespace {

constexpr size_t kReadaheadBytes = 1 << 20;
// One random read takes as long as this much more of a sequential one (0.1 ms, 1.2 GB/s).
constexpr uint64_t kSkipBytes = 128 << 10;

std::span<const uint8_t> ToSpan(const rocksdb::Slice& slice) {
  return {reinterpret_cast<const uint8_t*>(slice.data()), slice.size()};
}

}  // namespace

absl::StatusOr<TierView> RocksDbDatabase::ReadPart(const StoredValue& value, uint32_t part) const {
  auto bytes = std::make_shared<rocksdb::PinnableSlice>();
  const std::string key = PartKey(value.batch, part, value.place);
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), families_[static_cast<size_t>(value.key.kind)], key, bytes.get());
  if (!status.ok()) return FromRocksDb(status, fmt::format("part {} of {}", part, value.key.ToString()));
  if (bytes->size() != value.part_bytes) {
    return DataLoss("ssd tier {}: part {} of {}: {} bytes instead of {}", Quoted(folder_.path(), 4096), part,
                    value.key.ToString(), bytes->size(), value.part_bytes);
  }
  return TierView{bytes, ToSpan(*bytes)};
}

absl::StatusOr<TierView> RocksDbDatabase::ReadPartByPart(const StoredValue& value) const {
  const size_t bytes = value.parts * value.part_bytes;
  const auto whole = std::make_shared_for_overwrite<uint8_t[]>(bytes);
  for (uint32_t part = 0; part < value.parts; ++part) {
    PALIMPSEST_ASSIGN_OR_RETURN(const TierView view, ReadPart(value, part));
    std::memcpy(whole.get() + part * value.part_bytes, view.bytes.data(), view.bytes.size());
  }
  return TierView{whole, {whole.get(), bytes}};
}

// Copies their parts from one pass over what lies between the first and the last; false: not all were there.
bool RocksDbDatabase::ScanTogether(std::span<const StoredValue> values, std::span<uint8_t* const> to) const {
  uint32_t parts = 0, first_place = values[0].place;
  uint64_t bytes = 0, wanted = 0;
  absl::flat_hash_map<uint32_t, size_t> at_place;
  for (size_t i = 0; i < values.size(); ++i) {
    parts = std::max(parts, values[i].parts);
    wanted += values[i].parts;
    bytes += values[i].parts * values[i].part_bytes;
    first_place = std::min(first_place, values[i].place);
    at_place.emplace(values[i].place, i);
  }
  rocksdb::ReadOptions options;
  options.readahead_size = std::min<uint64_t>(kReadaheadBytes, bytes);
  const std::string end = PartKey(values[0].batch, parts, 0);
  const rocksdb::Slice bound = end;
  options.iterate_upper_bound = &bound;
  const std::unique_ptr<rocksdb::Iterator> at(
      db_->NewIterator(options, families_[static_cast<size_t>(values[0].key.kind)]));
  uint64_t found = 0;
  for (at->Seek(PartKey(values[0].batch, 0, first_place)); found < wanted && at->Valid(); at->Next()) {
    // RocksDB believes what it noted of a file's range; of a file in another's place it may return any key.
    if (BatchOfKey(at->key().ToStringView()) != values[0].batch) return false;
    const auto [part, place] = PartOfKey(at->key().ToStringView());
    const auto match = at_place.find(place);
    if (match == at_place.end()) continue;
    const StoredValue& value = values[match->second];
    if (part >= value.parts || at->value().size() != value.part_bytes) return false;
    std::memcpy(to[match->second] + part * value.part_bytes, at->value().data(), value.part_bytes);
    ++found;
  }
  return found == wanted;
}

absl::StatusOr<TierView> RocksDbDatabase::ReadValue(const StoredValue& value, uint32_t neighbours) const {
  if (value.parts == 1) return ReadPart(value, 0);
  // Its parts lie among those of its neighbours: skipping over these or jumping, whichever is faster.
  if ((neighbours - 1) * value.part_bytes > kSkipBytes) return ReadPartByPart(value);
  return std::move(ReadTogether({&value, 1})[0]);
}

std::vector<absl::StatusOr<TierView>> RocksDbDatabase::ReadTogether(
    std::span<const StoredValue> values) const {
  std::vector<absl::StatusOr<TierView>> views;
  std::vector<uint8_t*> to;
  for (const StoredValue& value : values) {
    const size_t bytes = value.parts * value.part_bytes;
    const auto whole = std::make_shared_for_overwrite<uint8_t[]>(bytes);
    to.push_back(whole.get());
    views.emplace_back(TierView{whole, {whole.get(), bytes}});
  }
  if (values.empty() || ScanTogether(values, to)) return views;
  // Whose fault it was: a neighbour's damage is not theirs.
  for (size_t i = 0; i < values.size(); ++i) views[i] = ReadPartByPart(values[i]);
  return views;
}

}  // namespace palimpsest
