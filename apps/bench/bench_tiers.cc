// The SSD tier beside its disk: sealed groups written through the mover, and read back cold as recall reads
// them (single tiles at random) and as a restore does (whole groups in order, of which a read takes a head's
// tiles of eight). Sealing, encryption and verification count; the yardstick is a plain file of the same size
// on the same disk, read and written past the page cache in pieces of the same size by as many threads.
// Numbers are of no meaning.
#include <algorithm>
#include <filesystem>
#include <numeric>
#include <system_error>
#include <utility>

#include "apps/bench/bench_runs.h"
#include "apps/bench/raw_file.h"
#include "apps/scratch_folder.h"
#include "proto/base/quote.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_tier.h"

namespace palimpsest {
namespace {

constexpr int64_t kGroupsTogether = 32;              // a span of 2,048 tokens is put and committed together
constexpr int64_t kTilesPerHead = 48;                // that a recall reads of each head
constexpr size_t kTilesPerCall = 432;                // that a recall asks for together
constexpr auto kPatience = std::chrono::minutes(5);  // a slow disk is measured, not given up

int64_t RoundUp(int64_t bytes) { return DivideUp(bytes, RawFile::kAlignment) * RawFile::kAlignment; }
int64_t RoundDown(int64_t bytes) { return bytes / RawFile::kAlignment * RawFile::kAlignment; }

// The groups of one text, on SSD and nowhere else.
class StoredText {
 public:
  static absl::StatusOr<std::unique_ptr<StoredText>> Make(const KvShape& shape, int64_t groups,
                                                          const BenchOptions::Disk& disk,
                                                          const CancelToken& cancel) {
    std::unique_ptr<StoredText> text(new StoredText(shape, groups, disk, cancel));
    PALIMPSEST_ASSIGN_OR_RETURN(text->folder_, ScratchFolder::Make(disk.folder, "bench"));
    PALIMPSEST_RETURN_IF_ERROR(text->CheckRoom());
    PALIMPSEST_ASSIGN_OR_RETURN(text->raw_, RawFile::Make(text->folder_->path() + "/raw"));
    PALIMPSEST_RETURN_IF_ERROR(text->Open());
    return text;
  }

  int64_t tile_bytes() const { return 2 * shape_.tile_stride(kTileSlots); }
  int64_t group_bytes() const { return shape_.group_bytes(kTileSlots); }
  RawFile& raw() { return *raw_; }

  // A new process: nothing of what was read is in memory.
  absl::Status Open() {
    mover_.reset();
    PALIMPSEST_ASSIGN_OR_RETURN(
        std::unique_ptr<Tier> ssd,
        OpenRocksDbTier({.folder = folder_->path() + "/tier", .capacity_bytes = capacity_bytes()}));
    const MoverOptions options{.readers = disk_.readers, .put_wait = kPatience, .read_wait = kPatience};
    mover_ = std::make_unique<Mover>(options, nullptr, std::move(ssd), key_);
    return absl::OkStatus();
  }

  // Seals so many more groups and waits until they are on SSD.
  absl::Status Write(int64_t groups) {
    for (const int64_t end = written_ + groups; written_ < end; ++written_) {
      PALIMPSEST_RETURN_IF_ERROR(cancel_.Check());
      mover_->Put(IdOf(written_), SealedGroup(IdOf(written_)), static_cast<uint32_t>(shape_.tiles()));
      if ((written_ + 1) % kGroupsTogether == 0) mover_->Commit();
    }
    const bool stored = mover_->Flush(kPatience);
    const MoverStats stats = mover_->stats();
    if (stored && stats.dropped_full + stats.dropped_refused == 0) return absl::OkStatus();
    return Error(absl::StatusCode::kUnavailable, "bench tiers: the disk did not take {} groups in {} s",
                 groups, Seconds(kPatience));
  }

  // Tile t is part t % tiles of group t / tiles.
  absl::Status ReadTiles(std::span<const int64_t> tiles) {
    for (size_t first = 0; first < tiles.size(); first += kTilesPerCall) {
      PALIMPSEST_RETURN_IF_ERROR(cancel_.Check());
      std::vector<Mover::TileRequest> requests;
      for (const int64_t tile : tiles.subspan(first, std::min(kTilesPerCall, tiles.size() - first)))
        requests.push_back({IdOf(tile / shape_.tiles()), static_cast<uint32_t>(tile % shape_.tiles())});
      for (const auto& found : mover_->GetTiles(requests))
        if (!found.has_value()) return Missing();
    }
    return absl::OkStatus();
  }

  absl::Status ReadGroups() {
    std::vector<TierKey> keys;
    for (int64_t i = 0; i < groups_; ++i) keys.push_back(IdOf(i));
    const size_t ahead = mover_->ReadAhead(group_bytes());
    for (size_t i = 0; i < keys.size(); ++i) {
      PALIMPSEST_RETURN_IF_ERROR(cancel_.Check());
      if (i % (ahead / 2) == 0)
        mover_->Prefetch(std::span(keys).subspan(i, std::min(ahead, keys.size() - i)));
      if (!mover_->Get(keys[i]).has_value()) return Missing();
    }
    return absl::OkStatus();
  }

 private:
  StoredText(const KvShape& shape, int64_t groups, const BenchOptions::Disk& disk, const CancelToken& cancel)
      : shape_(shape),
        groups_(groups),
        disk_(disk),
        cancel_(cancel),
        random_(static_cast<size_t>(group_bytes())) {
    RngSequence random(Rng(9));
    for (uint8_t& byte : random_) byte = static_cast<uint8_t>(random.Next());
    std::array<uint8_t, 32> key;
    RandomBytes(key);
    if (disk.encrypt) key_ = DataKey::FromBytes(key, /*number=*/1);
  }

  int64_t capacity_bytes() const { return 2 * groups_ * group_bytes(); }

  absl::Status CheckRoom() const {
    constexpr int64_t kSpare = 64 << 20;
    const int64_t needed = 2 * groups_ * group_bytes() + kSpare;  // the tier and the plain file
    std::error_code error;
    const auto free = static_cast<int64_t>(std::filesystem::space(folder_->path(), error).available);
    if (error || free >= needed) return absl::OkStatus();
    return ResourceExhausted(
        "bench tiers: {} tokens need {} bytes in {}, which has {} free; use a smaller --depth or another "
        "data folder",
        groups_ * kTileSlots, needed, Quoted(disk_.folder, 4096), free);
  }

  static BlockId IdOf(int64_t group) { return BlockId{Sha256(fmt::format("bench group {}", group))}; }

  std::vector<uint8_t> SealedGroup(const BlockId& id) const {
    std::vector<uint8_t> group = random_;
    for (int64_t tile = 0; tile < shape_.tiles(); ++tile) {
      const TileGeometry geometry{.layers = static_cast<int32_t>(shape_.layers),
                                  .kv_heads = static_cast<int32_t>(shape_.kv_heads),
                                  .layer = static_cast<int32_t>(tile / shape_.kv_heads),
                                  .kv_head = static_cast<int32_t>(tile % shape_.kv_heads),
                                  .head_size = static_cast<int32_t>(shape_.head_size),
                                  .tokens = kTileSlots,
                                  .format = kTileBf16};
      const auto bytes = static_cast<size_t>(tile_bytes());
      SealTile(id, geometry, std::span(group).subspan(static_cast<size_t>(tile) * bytes, bytes), nullptr);
    }
    return group;
  }

  static absl::Status Missing() {
    return Error(absl::StatusCode::kUnavailable,
                 "bench tiers: a value that was written is not found; see the log and the disk's health");
  }

  const KvShape shape_;
  const int64_t groups_;
  const BenchOptions::Disk& disk_;
  const CancelToken& cancel_;
  std::vector<uint8_t> random_;  // (tiles, tile bytes)
  std::shared_ptr<DataKey> key_;
  int64_t written_ = 0;  // groups
  std::unique_ptr<ScratchFolder> folder_;
  std::unique_ptr<RawFile> raw_;
  std::unique_ptr<Mover> mover_;  // last: it uses the folder
};

}  // namespace

absl::Status Bench::Tiers(int64_t depth) {
  const KvShape shape = engine_.store().shape();
  const int64_t runs = options_.rounds + 1;  // the first does not count
  const int64_t groups_of_run = DivideUp(DivideUp(depth, kTileSlots), runs);
  const int64_t groups = groups_of_run * runs, tiles = groups * shape.tiles();
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<StoredText> text,
                              StoredText::Make(shape, groups, options_.disk, *options_.cancel));
  RawFile& raw = text->raw();
  const int64_t tile_bytes = text->tile_bytes(), group_bytes = text->group_bytes();
  const auto timed = [](const std::function<absl::Status()>& run) -> absl::StatusOr<double> {
    absl::Status status;
    const double seconds = TimeOf([&] { status = run(); });
    if (!status.ok()) return status;
    return seconds;
  };
  // The rate of `run`, which moves as many bytes of sealed tiles as the subject.
  const auto rate = [&](int64_t bytes, const std::function<absl::Status()>& run) -> absl::StatusOr<double> {
    PALIMPSEST_ASSIGN_OR_RETURN(const double seconds, timed(run));
    return static_cast<double>(bytes) / seconds;
  };
  const auto report = [&](const char* name, int64_t of_run, const char* yardstick,
                          const Measured& measured) -> BenchResult& {
    const int64_t tokens = of_run * kTileSlots / shape.tiles();
    BenchResult result{.name = name, .tokens = tokens, .depth = groups * kTileSlots};
    result.bytes = of_run * tile_bytes;
    result.yardstick.name = fmt::format("{} {}", raw.is_direct() ? "direct" : "cached", yardstick);
    result.yardstick.unit = "B/s";
    return Report(std::move(result), static_cast<double>(of_run * tile_bytes), tokens, measured);
  };

  const int64_t written_of_run = groups_of_run * group_bytes;
  const auto write = [&] { return timed([&] { return text->Write(groups_of_run); }); };
  PALIMPSEST_ASSIGN_OR_RETURN(
      const Measured writing,
      MeasureBeside([&] { return rate(written_of_run, [&] { return raw.Append(RoundUp(written_of_run)); }); },
                    write));
  BenchResult& written = report("tier write", groups_of_run * shape.tiles(), "write", writing);
  PALIMPSEST_RETURN_IF_ERROR(BesideReading(groups_of_run * kTileSlots, &written));
  // Of the run that did not count, and room for what reads round up to.
  PALIMPSEST_RETURN_IF_ERROR(
      raw.Append(RoundUp(written_of_run) + RoundUp(group_bytes) + RoundUp(tile_bytes)));

  // Each tile once, so that no cache of tiles helps either.
  std::vector<int64_t> order(static_cast<size_t>(tiles));
  std::iota(order.begin(), order.end(), 0);
  RngSequence random(Rng(10));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  const int64_t tiles_of_run = std::min(kTilesPerHead * shape.tiles(), tiles / runs);
  size_t next = 0;
  const auto read_tiles = [&]() -> absl::StatusOr<double> {
    PALIMPSEST_RETURN_IF_ERROR(text->Open());
    const std::span<const int64_t> some = std::span(order).subspan(next, static_cast<size_t>(tiles_of_run));
    next += some.size();
    return timed([&] { return text->ReadTiles(some); });
  };
  const auto read_raw = [&](std::vector<int64_t> offsets, int64_t bytes) {
    for (int64_t& offset : offsets) offset = RoundDown(offset * bytes);
    return rate(static_cast<int64_t>(offsets.size()) * bytes,
                [&] { return raw.Read(offsets, RoundUp(bytes), options_.disk.readers); });
  };
  const auto raw_tiles = [&] {
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(next);
    return read_raw({first, first + static_cast<std::ptrdiff_t>(tiles_of_run)}, tile_bytes);
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured random_reads, MeasureBeside(raw_tiles, read_tiles));
  report("tier tiles", tiles_of_run, "read", random_reads);

  const auto read_groups = [&]() -> absl::StatusOr<double> {
    PALIMPSEST_RETURN_IF_ERROR(text->Open());
    return timed([&] { return text->ReadGroups(); });
  };
  const auto raw_groups = [&] {  // as a restore reads: a head's tiles of so many groups
    const int64_t together = Mover::kReadTogether;
    std::vector<int64_t> in_order(static_cast<size_t>(tiles / together));
    std::iota(in_order.begin(), in_order.end(), 0);
    return read_raw(std::move(in_order), together * tile_bytes);
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured in_order, MeasureBeside(raw_groups, read_groups));
  report("tier groups", tiles, "read", in_order);
  return absl::OkStatus();
}

}  // namespace palimpsest
