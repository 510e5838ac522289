// What all tokens of one text said of each other while they were read, kept for the next policy or budget
// that asks for the same: it loads the text's blocks instead of running its rows.
//
// Of texts that are read as one, in host memory alone (host.view_bytes): 4 bytes for each token and query
// head, 8 with squares (of SmolLM2-135M 5 and 9 % of the KV); and QueryMoments.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/compression/slots.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// Of what is seen while the context's rows run; with squares instead of without them serves as well.
Hash256 Engine::ReadingKey(const Job& job, const Compression& c, bool squares) const {
  std::string what = "read";
  if (c.needs.sums) what += squares ? ", sums and squares" : ", sums";
  if (c.needs.losses) what += ", losses";
  if (c.needs.future > 0) what += fmt::format(", queries from {}", c.needs.sink);
  return ViewKey(job, c, what);
}

void Engine::FindReading(const Job& job) {
  Compression& c = *job.compression;
  if (!c.sees_all() || c.read != nullptr) return;
  c.read = views_.Find(ReadingKey(job, c, c.needs.squares));
  if (c.read == nullptr && c.needs.sums) c.read = views_.Find(ReadingKey(job, c, /*squares=*/true));
  if (c.read == nullptr || !c.needs.losses) return;
  std::copy(c.read->losses.begin(), c.read->losses.end(), c.losses.begin());
}

// Everything was read, by this request or by another.
void Engine::ShareReading(Job& job) {
  Compression& c = *job.compression;
  if (!c.sees_all()) return;
  c.read == nullptr ? KeepReading(job) : TakeReading(job);
}

void Engine::KeepReading(const Job& job) {
  const Compression& c = *job.compression;
  const int64_t sums =
      c.needs.sums ? c.sum_rows(1) * config_.layers * config_.heads * (c.context_end - c.fixed) : 0;
  if (sums * static_cast<int64_t>(sizeof(float)) > options_.view_bytes) return;  // nor would it be kept
  auto read = std::make_shared<View>();
  if (c.needs.losses) read->losses.assign(c.losses.begin(), c.losses.begin() + c.context_end);
  if (c.needs.future > 0) read->moments = std::make_shared<const QueryMoments>(c.moments);
  if (c.needs.sums) {
    const std::vector<std::vector<int32_t>> all(static_cast<size_t>(store_->shape().tiles()),
                                                Range(c.fixed, c.context_end));
    std::vector<std::vector<float>> said = SumsOf(job, all);
    read->heads.resize(said.size());
    for (size_t head = 0; head < said.size(); ++head) read->heads[head].sums = std::move(said[head]);
  }
  views_.Put(ReadingKey(job, c, c.needs.squares), std::move(read));
}

// As if its own rows had been seen.
void Engine::TakeReading(Job& job) {
  Compression& c = *job.compression;
  if (c.needs.future > 0) c.moments = *c.read->moments;
  if (!c.needs.sums) return;
  const int64_t group = config_.heads / config_.kv_heads, count = c.context_end - c.fixed;
  c.sums.Begin(config_.layers, config_.heads, c.fixed, std::ssize(job.sequence->tiles(0, 0)),
               c.needs.squares);
  std::vector<int32_t> places(static_cast<size_t>(count));
  for (size_t h = 0; h < c.read->heads.size(); ++h) {
    const int64_t layer = static_cast<int64_t>(h) / config_.kv_heads,
                  head = static_cast<int64_t>(h) % config_.kv_heads;
    ReadPlaces({.pool = arena_->pool(),
                .tiles = job.sequence->tiles(layer, head),
                .skip = c.fixed,
                .count = count,
                .head_size = config_.head_size},
               places.data());
    for (int64_t row = 0; row < c.sum_rows(group); ++row) {
      c.sums.SetAt(layer, head * group + row % group, /*squares=*/row >= group, places,
                   c.read->heads[h].sums.data() + row * count);
    }
  }
}

}  // namespace palimpsest
