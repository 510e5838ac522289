// Digests on the CPU: made of rotated keys, scored by all queries of a head.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

static_assert(kRunSlots == kDigestRunSlots && kBoxSlots == kDigestBoxSlots);

// No task is shorter: a few microseconds of work.
constexpr int64_t kTilesPerTask = 8;

constexpr int16_t kExponent = 0x7f80;  // of a bf16, all of it where the number is not finite
bool IsFinite(Bf16 x) { return (x & kExponent) != kExponent; }

// The slots of (rows, D) keys whose numbers are all finite.
uint64_t FiniteSlots(const Bf16* keys, int64_t rows, int64_t d) {
  uint64_t slots = 0;
  for (int64_t s = 0; s < rows; ++s) {
    int16_t largest = 0;  // exponent
    for (int64_t i = 0; i < d; ++i) {
      largest = std::max(largest, static_cast<int16_t>(keys[s * d + i] & kExponent));
    }
    slots |= uint64_t{largest != kExponent} << s;
  }
  return slots;
}

// As a tile holds K. A key that takes no part becomes one whose products are no numbers.
void KeepExact(const DigestKeys& t) {
  for (int64_t s = 0; s < kTileSlots; ++s) {
    const bool empty = s >= t.rows, seen = (t.slots >> s & 1) != 0;
    for (int64_t i = 0; i < t.head_size; i += 2) {
      const Bf16 none[2] = {Bf16{0x7fc0}, Bf16{0x7fc0}}, zeros[2] = {};
      const Bf16* pair = empty ? zeros : seen ? t.keys + s * t.head_size + i : none;
      std::memcpy(t.out + (i * kTileSlots + s * 2) * 2, pair, 4);
    }
  }
}

// A row for the kernel of its kind, from bf16 (D). `wide` holds D floats, or 2 D of boxes.
void FixQuery(const Bf16* q, int64_t d, float scale, int16_t* fixed, float* unit) {
  float top = 0;
  for (int64_t i = 0; i < d; ++i) top = std::max(top, std::abs(Bf16ToFloat(q[i])));
  for (int64_t i = 0; i < d; ++i) {
    fixed[i] = static_cast<int16_t>(top > 0 ? std::lrintf(Bf16ToFloat(q[i]) / top * 32767.0f) : 0);
  }
  *unit = top / 32767.0f * scale;
}
void BoxQuery(DigestKind kind, const Bf16* q, int64_t d, float* wide) {
  for (int64_t i = 0; i < d; ++i) {
    const float x = Bf16ToFloat(q[i]);
    // max(x a, x b) of b <= a is max(x, 0) a + min(x, 0) b; max(x (c + r), x (c - r)) is x c + |x| r.
    wide[i] = kind == DigestKind::kMinMax ? std::max(x, 0.0f) : x;
    wide[d + i] = kind == DigestKind::kMinMax ? std::min(x, 0.0f) : std::abs(x);
  }
}

}  // namespace

void CpuBackend::BuildDigest(const BuildDigestArgs& args) {
  CheckHeadSize(args.head_size);
  PALIMPSEST_CHECK(args.rows >= 0 && args.rows <= kTileSlots, "digest of {} keys", args.rows);
  const int64_t d = args.head_size;
  alignas(64) Bf16 keys[kTileSlots * 256];
  for (int64_t s = 0; s < args.rows; ++s) {
    RotateKey(*args.rope, d, args.first_position + s, args.keys + s * d, keys + s * d);
  }
  // What rotation makes of a number that is not finite is not said.
  const uint64_t slots = FiniteSlots(args.keys, args.rows, d) & FiniteSlots(keys, args.rows, d);
  const DigestKeys digest{.keys = keys, .rows = args.rows, .head_size = d, .slots = slots, .out = args.out};
  switch (args.kind) {
    case DigestKind::kQ2:
      return kernels_.digest_q2(digest);
    case DigestKind::kExact:
      return KeepExact(digest);
    case DigestKind::kMinMax:
    case DigestKind::kBoxMean:
      return kernels_.digest_boxes(digest, args.kind == DigestKind::kMinMax);
  }
}

// Row after row, the finite ones side by side from the head's first.
void CpuBackend::TurnDigestQueries(const ScoreDigestsArgs& args, int64_t head) {
  const int64_t d = args.head_size, rows = static_cast<int64_t>(args.positions.size());
  const Rows<const float>& q = args.heads[static_cast<size_t>(head)].q;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t first = head * rows * args.group;
  alignas(64) float rope[512];
  int64_t count = 0;
  for (int64_t t = 0; t < rows; ++t) {
    const float* turn = args.rope->Row(args.positions[static_cast<size_t>(t)], rope);
    for (int64_t g = 0; g < args.group; ++g) {
      const float* x = q.row(t) + g * d;
      const int64_t at = first + count;
      Bf16* turned = digest_queries_.turned.data() + at * d;
      kernels_.rotate(x, turn, d, turned);
      if (!std::all_of(x, x + d, [](float v) { return std::isfinite(v); })) continue;
      if (!std::all_of(turned, turned + d, IsFinite)) continue;
      if (args.kind == DigestKind::kQ2) {
        FixQuery(turned, d, scale, digest_queries_.fixed.data() + at * d, digest_queries_.units.data() + at);
      } else if (args.kind != DigestKind::kExact) {
        BoxQuery(args.kind, turned, d, digest_queries_.wide.data() + at * 2 * d);
      } else if (kernels_.wide_left) {
        kernels_.widen(turned, d, digest_queries_.wide.data() + at * d);
      }
      ++count;
    }
  }
  digest_queries_.counts[head] = count;
}

DigestBlock CpuBackend::DigestBlockOf(const ScoreDigestsArgs& args, int64_t head, int64_t tile,
                                      int64_t tiles) const {
  const DigestHead& h = args.heads[static_cast<size_t>(head)];
  const int64_t d = args.head_size, first = head * static_cast<int64_t>(args.positions.size()) * args.group;
  const bool boxes = args.kind == DigestKind::kMinMax || args.kind == DigestKind::kBoxMean;
  return {.tiles = h.tiles.data() + tile,
          .slots = h.slots.data() + tile,
          .tile_count = tiles,
          .rows = digest_queries_.counts[head],
          .head_size = d,
          .slice = args.slice,
          .scale = 1.0f / std::sqrt(static_cast<float>(d)),
          .q_fixed = digest_queries_.fixed.data() + first * d,
          .q_units = digest_queries_.units.data() + first,
          .q = digest_queries_.turned.data() + first * d,
          .q_wide = digest_queries_.wide.data() + first * d * (boxes ? 2 : 1),
          .out = h.out + tile * (kTileSlots / args.slice)};
}

void CpuBackend::ReserveDigestQueries(const ScoreDigestsArgs& args) {
  const int64_t heads = static_cast<int64_t>(args.heads.size()), d = args.head_size;
  const int64_t rows = heads * static_cast<int64_t>(args.positions.size()) * args.group;
  digest_queries_.counts.Reserve(heads);
  digest_queries_.turned.Reserve(rows * d);
  digest_queries_.fixed.Reserve(rows * d);
  digest_queries_.units.Reserve(rows + 3);  // read by fours
  digest_queries_.wide.Reserve(rows * d * 2);
}

// Each tile is scored by one thread against all rows of its head: bits depend on neither threads nor tasks.
void CpuBackend::ScoreDigests(const ScoreDigestsArgs& args) {
  CheckHeadSize(args.head_size);
  PALIMPSEST_CHECK(args.slice == 1 || (args.slice >= 8 && kTileSlots % args.slice == 0), "slices of {} slots",
                   args.slice);
  const int64_t rows = static_cast<int64_t>(args.positions.size());
  struct Task {
    int64_t head, first, tiles;
  };
  int64_t all = 0;
  for (const DigestHead& head : args.heads) {
    PALIMPSEST_CHECK(head.q.rows == rows && head.q.columns == args.group * args.head_size,
                     "queries ({}, {}) for {} positions and {} heads of {}", head.q.rows, head.q.columns,
                     rows, args.group, args.head_size);
    PALIMPSEST_CHECK(head.tiles.size() == head.slots.size(), "{} digests, slots of {}", head.tiles.size(),
                     head.slots.size());
    all += static_cast<int64_t>(head.tiles.size());
  }
  ReserveDigestQueries(args);
  const int64_t heads = static_cast<int64_t>(args.heads.size());
  const int64_t together = std::max(kTilesPerTask, DivideUp(all, int64_t{pool_.threads()} * 16));
  std::vector<Task> tasks;
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t tiles = static_cast<int64_t>(args.heads[static_cast<size_t>(head)].tiles.size());
    for (int64_t first = 0; first < tiles; first += together) {
      tasks.push_back({head, first, std::min(together, tiles - first)});
    }
  }
  pool_.ParallelFor(heads, [&](int64_t head, int) { TurnDigestQueries(args, head); });
  const auto score = args.kind == DigestKind::kQ2      ? kernels_.score_q2
                     : args.kind == DigestKind::kExact ? kernels_.score_exact
                                                       : kernels_.score_boxes;
  pool_.ParallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t i, int) {
    const Task& task = tasks[static_cast<size_t>(i)];
    score(DigestBlockOf(args, task.head, task.first, task.tiles));
  });
}

}  // namespace palimpsest::cpu
