#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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

absl::StatusOr<std::vector<uint8_t>> RocksDbDatabase::ReadPartByPart(const StoredValue& value) const {
  std::vector<uint8_t> whole;
  whole.reserve(value.parts * value.part_bytes);
  for (uint32_t part = 0; part < value.parts; ++part) {
    PALIMPSEST_ASSIGN_OR_RETURN(const TierView view, ReadPart(value, part));
    whole.insert(whole.end(), view.bytes.begin(), view.bytes.end());
  }
  return whole;
}

namespace {

// How to go through a file for the values wanted of it. Its parts lie part by part, each with all values in
// the order of their places.
struct Route {
  std::vector<bool> jumps;  // to a value of the same part, or the first one of the next
  size_t count = 0;         // of jumps in a part; 0: the file is read from end to end
  uint64_t stretch = 0;     // bytes that are read from one jump to the next
};

// `values`: by place.
Route RouteOf(std::span<const StoredValue> values) {
  Route route;
  route.jumps.resize(values.size());
  uint64_t bytes = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const StoredValue& to = values[i];
    const StoredValue& from = values[i > 0 ? i - 1 : values.size() - 1];
    const uint32_t ahead =
        to.place > from.place ? to.place : to.place + std::max(to.neighbours, from.place + 1);
    const uint64_t between = (ahead - from.place - 1) * to.part_bytes;
    bytes += to.part_bytes;
    if (between > kSkipBytes) {
      route.jumps[i] = true;
      ++route.count;
    } else {
      bytes += between;
    }
  }
  route.stretch = route.count == 0 ? kReadaheadBytes : bytes / route.count;
  return route;
}

}  // namespace

// Appends their parts, in the order of the file; false: not all were there. `values`: of one batch and kind,
// by place, each once.
bool RocksDbDatabase::ScanTogether(std::span<const StoredValue> values,
                                   std::span<std::vector<uint8_t>> to) const {
  const Route route = RouteOf(values);
  if (route.count == values.size()) return false;  // nothing lies side by side
  uint32_t parts = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    parts = std::max(parts, values[i].parts);
    to[i].reserve(values[i].parts * values[i].part_bytes);
  }
  rocksdb::ReadOptions options;
  // A jump reads its first part and so much more. What RocksDB adds to a part is less than 64 bytes.
  const uint64_t part_bytes = values[0].part_bytes, padding = 64 * (route.stretch / part_bytes);
  options.readahead_size =
      std::clamp<uint64_t>(route.stretch + padding - std::min(route.stretch, part_bytes), 1, kReadaheadBytes);
  const std::string end = PartKey(values[0].batch, parts, 0);
  const rocksdb::Slice bound = end;
  options.iterate_upper_bound = &bound;
  const std::unique_ptr<rocksdb::Iterator> at(
      db_->NewIterator(options, families_[static_cast<size_t>(values[0].key.kind)]));
  for (uint32_t part = 0; part < parts; ++part) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (part >= values[i].parts) continue;
      const std::string key = PartKey(values[i].batch, part, values[i].place);
      if (route.jumps[i] || !at->Valid()) {
        at->Seek(key);
      } else {
        while (at->Valid() && at->key().compare(key) < 0) at->Next();
      }
      // RocksDB believes what it noted of a file's range; of a file in another's place it may return any key.
      if (!at->Valid() || at->key() != rocksdb::Slice(key) || at->value().size() != values[i].part_bytes)
        return false;
      const std::span<const uint8_t> bytes = ToSpan(at->value());
      to[i].insert(to[i].end(), bytes.begin(), bytes.end());
    }
  }
  return true;
}

absl::StatusOr<TierView> RocksDbDatabase::ReadValue(const StoredValue& value) const {
  if (value.parts == 1) return ReadPart(value, 0);
  absl::StatusOr<std::vector<uint8_t>> read = std::move(ReadTogether({&value, 1})[0]);
  if (!read.ok()) return read.status();
  const auto owner = std::make_shared<const std::vector<uint8_t>>(*std::move(read));
  return TierView{owner, *owner};
}

std::vector<absl::StatusOr<std::vector<uint8_t>>> RocksDbDatabase::ReadTogether(
    std::span<const StoredValue> values) const {
  const auto order = [](const StoredValue& value) {
    return std::tuple(value.batch, value.key.kind, value.place);
  };
  std::vector<size_t> sorted(values.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::sort(sorted.begin(), sorted.end(),
            [&](size_t a, size_t b) { return order(values[a]) < order(values[b]); });
  std::vector<absl::StatusOr<std::vector<uint8_t>>> read(values.size(), std::vector<uint8_t>());
  for (size_t first = 0, last = 0; first < sorted.size(); first = last) {
    std::vector<StoredValue> of_file;
    for (; last < sorted.size(); ++last) {
      const StoredValue& value = values[sorted[last]];
      if (value.batch != values[sorted[first]].batch || value.key.kind != values[sorted[first]].key.kind)
        break;
      of_file.push_back(value);
    }
    std::vector<std::vector<uint8_t>> bytes(of_file.size());
    const bool all = ScanTogether(of_file, bytes);
    for (size_t i = 0; i < of_file.size(); ++i) {
      // Whose fault it was: a neighbour's damage is not theirs.
      read[sorted[first + i]] = all ? std::move(bytes[i]) : ReadPartByPart(of_file[i]);
    }
  }
  return read;
}

}  // namespace palimpsest
