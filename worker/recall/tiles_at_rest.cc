#include "worker/recall/tiles_at_rest.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/tensor.h"

namespace palimpsest {

std::vector<std::optional<Mover::FoundTile>> GetTiles(Mover& mover, ThreadPool& pool,
                                                      std::span<const Mover::TileRequest> requests) {
  constexpr int64_t kTogetherMin = 8;
  const int64_t count = std::ssize(requests);
  const int64_t together = std::max(kTogetherMin, DivideUp(count, int64_t{pool.threads()}));
  std::vector<std::optional<Mover::FoundTile>> tiles(requests.size());
  pool.ParallelFor(DivideUp(count, together), [&](int64_t part, int) {
    const size_t first = static_cast<size_t>(part * together);
    auto some = mover.GetTiles(
        requests.subspan(first, static_cast<size_t>(std::min(together, count - part * together))));
    for (std::optional<Mover::FoundTile>& tile : some) {
      if (tile.has_value()) AlignPayload(&*tile);
    }
    std::move(some.begin(), some.end(), tiles.begin() + static_cast<std::ptrdiff_t>(first));
  });
  return tiles;
}

void AlignPayload(Mover::FoundTile* tile) {
  if (reinterpret_cast<uintptr_t>(tile->payload.data()) % alignof(Bf16) == 0) return;
  const auto copy = std::make_shared<std::vector<uint8_t>>(tile->payload.begin(), tile->payload.end());
  tile->payload = *copy;
  tile->owner = copy;
}

bool IsAtRest(const Mover::FoundTile& tile, int64_t rows, int64_t head_size) {
  return tile.geometry.format == kTileBf16 && tile.geometry.tokens == rows &&
         tile.geometry.head_size == head_size &&
         std::ssize(tile.payload) == 2 * rows * head_size * static_cast<int64_t>(sizeof(Bf16));
}

}  // namespace palimpsest
