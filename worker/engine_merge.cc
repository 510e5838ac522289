// Merging at the end of an exact context: who stays, who goes, and where both rest.
#include <algorithm>

#include "proto/base/status.h"
#include "worker/compression/merging.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// What goes joins what stays of each head: of each token behind the prefix that stays, K and V at rest. The
// prefix is the template's, and stays as it is. Nothing if nothing is merged.
std::vector<std::vector<Bf16>> Engine::MergeDropped(Job& job, std::span<const std::vector<int32_t>> kept) {
  const Compression& c = *job.compression;
  std::vector<std::vector<Bf16>> merged;
  if (!c.merges()) return merged;
  const std::vector<RestBlock> blocks = ContextAtRest(job, c.fixed);
  PALIMPSEST_CHECK(!blocks.empty(), "a block of the context is nowhere at rest, before it was decided on");
  std::vector<MergeHead> heads(kept.size());
  backend_->pool().ParallelFor(static_cast<int64_t>(kept.size()), [&](int64_t at, int) {
    const std::vector<int32_t>& tokens = kept[static_cast<size_t>(at)];
    MergeHead& head = heads[static_cast<size_t>(at)];
    auto next = tokens.begin() + c.fixed;
    for (const RestBlock& block : blocks) {
      const int64_t end = std::min(block.first + block.rows, c.context_end);
      for (int64_t token = block.first; token < end; ++token) {
        const bool stays = next != tokens.end() && *next == token;
        if (stays) ++next;
        (stays ? head.stays : head.goes)
            .push_back(block.At(store_->shape(), at / config_.kv_heads, at % config_.kv_heads, token));
      }
    }
  });
  MergeTokens(*backend_, c.spec.merge, config_.head_size, heads, &merged);
  return merged;
}

}  // namespace palimpsest
