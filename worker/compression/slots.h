// Keys and values of one head's slots as rows of float32, and what is known of them by slot, for policies
// that look at them; and one slot taking another's place.
//
// Order  : of the tiles' slots in use, the first `skip` left out.
// Threads: any; tiles that are read must not be written meanwhile.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace palimpsest {

struct HeadSlots {
  TilePool pool;
  std::span<const int32_t> tiles;
  int64_t skip;  // slots in use at the front that are left out
  int64_t count;
  int64_t head_size;
};

// out (count, D): keys as they are rotated in their tiles, to their position minus the tile's base.
void ReadKeys(const HeadSlots& slots, float* out);
// Turned back to position 0: the keys at rest, but for the rounding of the rotated ones.
void ReadKeysAtRest(const HeadSlots& slots, const RopeTable& rope, float* out);
// out (count, D)
void ReadValues(const HeadSlots& slots, float* out);

// columns (tiles, 64), one for each slot, of which out (count) has those of the slots.
void ReadColumns(const HeadSlots& slots, const float* columns, float* out);

// The column of each slot, in order: its place among all slots of the tiles, used or not. columns (count).
void ReadPlaces(const HeadSlots& slots, int32_t* columns);

// A token's K, V and position, to another slot of tiles of one base; both by their places.
void CopySlot(const TilePool& pool, std::span<const int32_t> tiles, int64_t head_size, int64_t from,
              int64_t to);

// turn (D): of each pair (2i, 2i+1) the mean cosine and the mean sine of its angles at `count` positions from
// `first` on.
void MeanTurn(const RopeTable& rope, int64_t first, int64_t count, std::span<float> turn);

}  // namespace palimpsest
