// The index of recall: digests of every layer and head made of keys at rest, and read by queries. Keys are
// numbers of no meaning.
#include <algorithm>
#include <numeric>

#include "apps/bench/bench_runs.h"
#include "proto/base/recall_spec.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kSlice = RecallSpec{}.slice, kSlicesOfTile = kTileSlots / kSlice;
constexpr int64_t kSourceTiles = 64;  // whose keys all tiles are made of: digests do not depend on others

// The index of one text.
class Index {
 public:
  Index(Engine& engine, int64_t tokens)
      : backend_(engine.backend()),
        head_size_(engine.config().head_size),
        group_(engine.config().heads / engine.config().kv_heads),
        layer_heads_(engine.config().kv_heads),
        heads_(engine.config().layers * layer_heads_),
        tiles_(DivideUp(tokens, kTileSlots)),
        bytes_(DigestBytes(DigestKind::kQ2, head_size_)),
        rope_(head_size_, engine.config().rope_size, engine.config().rope_theta, engine.config().rope_factors,
              (kSourceTiles + 1) * kTileSlots),
        keys_(kSourceTiles * kTileSlots * head_size_),
        digests_(heads_ * tiles_ * bytes_),
        best_(layer_heads_ * tiles_ * kSlicesOfTile),
        slots_(static_cast<size_t>(tiles_), ~uint64_t{0}) {
    RngSequence random(Rng(6));
    for (int64_t i = 0; i < keys_.size(); ++i) {
      keys_[i] = FloatToBf16(static_cast<float>(random.Uniform() * 4 - 2));
    }
    for (int64_t i = 0; i < heads_ * tiles_; ++i) pointers_.push_back(digests_.data() + i * bytes_);
    last_rows_ = tokens - (tiles_ - 1) * kTileSlots;
    slots_.back() >>= kTileSlots - last_rows_;
  }

  void Build() {
    backend_.pool().ParallelFor(heads_ * tiles_, [&](int64_t i, int) {
      const int64_t source = i % kSourceTiles;
      backend_.BuildDigest({.kind = DigestKind::kQ2,
                            .head_size = head_size_,
                            .keys = keys_.data() + source * kTileSlots * head_size_,
                            .rows = i % tiles_ + 1 == tiles_ ? last_rows_ : kTileSlots,
                            .first_position = source * kTileSlots,
                            .rope = &rope_,
                            .out = digests_.data() + i * bytes_});
    });
  }

  // Queries of `rows` tokens that stand behind the keys.
  void Ask(int64_t rows) {
    RngSequence random(Rng(7));
    q_ = AlignedBuffer<float>(heads_ * rows * group_ * head_size_);
    for (int64_t i = 0; i < q_.size(); ++i) q_[i] = static_cast<float>(random.Uniform() * 4 - 2);
    positions_.resize(static_cast<size_t>(rows));
    std::iota(positions_.begin(), positions_.end(), kSourceTiles * kTileSlots);
  }
  // Layer by layer, as a row meets them: the scores of one are used up before the next.
  void Scan() {
    for (int64_t first = 0; first < heads_; first += layer_heads_) ScanLayer(first);
  }

  double key_bytes() const { return 2.0 * static_cast<double>(heads_ * tiles_ * kTileSlots * head_size_); }
  double bytes() const { return static_cast<double>(digests_.size()); }
  double scan_flops() const {
    return key_bytes() * static_cast<double>(group_) * static_cast<double>(positions_.size());
  }

 private:
  void ScanLayer(int64_t first) {
    const int64_t rows = static_cast<int64_t>(positions_.size()), columns = group_ * head_size_;
    std::vector<DigestHead> heads;
    for (int64_t h = first; h < first + layer_heads_; ++h) {
      heads.push_back({.q = {q_.data() + h * rows * columns, rows, columns, columns},
                       .tiles = std::span(pointers_).subspan(static_cast<size_t>(h * tiles_), slots_.size()),
                       .slots = slots_,
                       .out = best_.data() + (h - first) * tiles_ * kSlicesOfTile});
    }
    backend_.ScoreDigests({.kind = DigestKind::kQ2,
                           .group = group_,
                           .head_size = head_size_,
                           .slice = kSlice,
                           .positions = positions_,
                           .rope = &rope_,
                           .heads = heads});
  }

  Backend& backend_;
  const int64_t head_size_, group_, layer_heads_, heads_;  // heads of a layer, of all of them
  const int64_t tiles_, bytes_;                            // tiles of a head; bytes of a digest
  const RopeTable rope_;
  AlignedBuffer<Bf16> keys_;              // (kSourceTiles, 64, D) at rest
  AlignedBuffer<uint8_t> digests_;        // (heads, tiles, bytes)
  AlignedBuffer<float> best_;             // (layer_heads, tiles, slices)
  std::vector<uint64_t> slots_;           // (tiles)
  int64_t last_rows_ = 0;                 // of the last tile
  std::vector<const uint8_t*> pointers_;  // (heads, tiles)
  AlignedBuffer<float> q_;                // (heads, rows, group * D)
  std::vector<int64_t> positions_;
};

}  // namespace

absl::Status Bench::Recall(const std::vector<int64_t>& rows, int64_t depth) {
  Index index(engine_, depth);
  const auto timed = [](const std::function<void()>& run) {
    return [run]() -> absl::StatusOr<double> { return TimeOf(run); };
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured build, Measure(Yardstick::kRead, timed([&] { index.Build(); })));
  BenchResult& built = Add("index_build", depth, 0, index.key_bytes(), depth, Yardstick::kRead, build);
  PALIMPSEST_RETURN_IF_ERROR(BesideReading(depth, &built));
  for (const int64_t count : rows) {
    index.Ask(count);
    const bool few = count == 1;  // bound by the bytes of the index, if it is larger than the cache
    const Yardstick yardstick = few ? Yardstick::kRead : Yardstick::kBf16;
    PALIMPSEST_ASSIGN_OR_RETURN(const Measured scan, Measure(yardstick, timed([&] { index.Scan(); })));
    Add("index_scan", count, depth, few ? index.bytes() : index.scan_flops(), count, yardstick, scan);
  }
  return absl::OkStatus();
}

}  // namespace palimpsest
