// Tiles of a document's blocks as recall brings them: at rest in bf16, from whichever tier has them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "kernels/thread_pool.h"
#include "storage/mover.h"

namespace palimpsest {

// Shared among the pool's threads, as opening a tile reads all of it. None: no tier gave it, whole and in
// time. Payloads may be read as Bf16.
std::vector<std::optional<Mover::FoundTile>> GetTiles(Mover& mover, ThreadPool& pool,
                                                      std::span<const Mover::TileRequest> requests);

// Plain tiles come as they lie in their file, at any address: one that cannot be read as Bf16 is copied.
void AlignPayload(Mover::FoundTile* tile);

// A tile of so many tokens: (2, rows, D), keys before rotation, values behind them.
bool IsAtRest(const Mover::FoundTile& tile, int64_t rows, int64_t head_size);

}  // namespace palimpsest
