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

absl::Status RocksDbDatabase::ReadPartByPart(std::span<const StoredValue> values, size_t i,
                                             const TakeParts& take) const {
  const StoredValue& value = values[i];
  for (uint32_t part = 0; part < value.parts; ++part) {
    PALIMPSEST_ASSIGN_OR_RETURN(const TierView view, ReadPart(value, part));
    take(i, part * value.part_bytes, value.parts * value.part_bytes, view.bytes);
  }
  return absl::OkStatus();
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

// In the order of the file; false: not all parts were there. `values`: of one batch and kind, by place, each
// once.
bool RocksDbDatabase::ScanTogether(std::span<const StoredValue> values, const TakeParts& take) const {
  const Route route = RouteOf(values);
  if (route.count == values.size()) return false;  // nothing lies side by side
  uint32_t parts = 0;
  for (const StoredValue& value : values) parts = std::max(parts, value.parts);
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
      const StoredValue& value = values[i];
      if (part >= value.parts) continue;
      const std::string key = PartKey(value.batch, part, value.place);
      if (route.jumps[i] || !at->Valid()) {
        at->Seek(key);
      } else {
        while (at->Valid() && at->key().compare(key) < 0) at->Next();
      }
      // RocksDB believes what it noted of a file's range; of a file in another's place it may return any key.
      if (!at->Valid() || at->key() != rocksdb::Slice(key) || at->value().size() != value.part_bytes)
        return false;
      take(i, part * value.part_bytes, value.parts * value.part_bytes, ToSpan(at->value()));
    }
  }
  return true;
}

absl::StatusOr<TierView> RocksDbDatabase::ReadValue(const StoredValue& value) const {
  if (value.parts == 1) return ReadPart(value, 0);
  GatheredValues read(1);
  PALIMPSEST_RETURN_IF_ERROR(ReadTogether({&value, 1}, read.take())[0]);
  const auto owner = std::make_shared<const std::vector<uint8_t>>(std::move(read[0]));
  return TierView{owner, *owner};
}

std::vector<absl::Status> RocksDbDatabase::ReadTogether(std::span<const StoredValue> values,
                                                        const TakeParts& take) const {
  const auto file = [](const StoredValue& value) { return std::tuple(value.batch, value.key.kind); };
  std::vector<size_t> sorted(values.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::sort(sorted.begin(), sorted.end(), [&](size_t a, size_t b) {
    return std::tuple(file(values[a]), values[a].place) < std::tuple(file(values[b]), values[b].place);
  });
  std::vector<absl::Status> answers(values.size());
  for (size_t first = 0, last = 0; first < sorted.size(); first = last) {
    std::vector<StoredValue> of_file;
    for (; last < sorted.size() && file(values[sorted[last]]) == file(values[sorted[first]]); ++last)
      of_file.push_back(values[sorted[last]]);
    const TakeParts take_of_file = [&](size_t i, uint64_t offset, uint64_t total,
                                       std::span<const uint8_t> bytes) {
      take(sorted[first + i], offset, total, bytes);
    };
    if (ScanTogether(of_file, take_of_file)) continue;
    // Whose fault it was: a neighbour's damage is not theirs.
    for (size_t i = 0; i < of_file.size(); ++i)
      answers[sorted[first + i]] = ReadPartByPart(of_file, i, take_of_file);
  }
  return answers;
}

}  // namespace palimpsest
