#include "worker/recall/attention_audit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "worker/compression/slots.h"

namespace palimpsest {
namespace {

constexpr double kLowest = -std::numeric_limits<double>::infinity();

void RotateTo(const float* q, const float* row, std::span<double> out) {
  const size_t d = out.size();
  for (size_t i = 0; i < d; ++i) {
    out[i] = double{q[i]} * double{row[i]} + double{q[i ^ 1]} * double{row[d + i]};
  }
}

double Product(std::span<const double> q, const float* key) {
  double sum = 0;
  for (size_t d = 0; d < q.size(); ++d) sum += q[d] * double{key[d]};
  return sum;
}

// Softmax and its product with values over some slots, as they come.
struct Attention {
  explicit Attention(int64_t head_size) : out(static_cast<size_t>(head_size)) {}
  void Add(double weight, const float* value) {
    mass += weight;
    for (size_t d = 0; d < out.size(); ++d) out[d] += weight * double{value[d]};
  }
  double mass = 0;
  std::vector<double> out;
};

double ErrorOf(const Attention& seen, const Attention& all) {
  double difference = 0, length = 0;
  for (size_t d = 0; d < all.out.size(); ++d) {
    const double dense = all.out[d] / all.mass, other = seen.mass > 0 ? seen.out[d] / seen.mass : 0;
    difference += (other - dense) * (other - dense);
    length += dense * dense;
  }
  return length > 0 ? std::sqrt(difference / length) : 0;
}

struct Slot {
  const float* value;
  double logit;
  bool resident, seen;
};

}  // namespace

AttentionAudit::AttentionAudit(Setup setup)
    : setup_(std::move(setup)), sums_(static_cast<size_t>(setup_.config->layers * setup_.config->kv_heads)) {}

void AttentionAudit::BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) {
  setup_.everything->BeforeAttention(layer, q, positions);
  if (layer == 0 && q.rows == 1) ++rows_;
  const bool chooses = q.rows > 1 || (rows_ - 1) % setup_.refresh == 0;
  if (setup_.chooser != nullptr && chooses) setup_.chooser->Choose(layer, q, positions);
  if (q.rows != 1) return;  // the question's tokens choose together: what each would see is not known
  const int64_t columns = setup_.config->heads / setup_.config->kv_heads * setup_.config->head_size;
  setup_.backend->pool().ParallelFor(setup_.config->kv_heads, [&](int64_t kv_head, int) {
    Look(layer, kv_head, q.data + kv_head * columns, positions[0]);
  });
}

void AttentionAudit::Look(int64_t layer, int64_t kv_head, const float* q, int64_t position) {
  const ModelConfig& config = *setup_.config;
  const int64_t d = config.head_size, head = layer * config.kv_heads + kv_head;
  const std::span<const int32_t> tiles = setup_.sequence->tiles(layer, kv_head);
  const std::span<const int32_t> shifts = setup_.sequence->shifts(layer, kv_head);
  const std::vector<int32_t>& back = setup_.tiles[static_cast<size_t>(head)];
  const std::span<const int32_t> came = setup_.everything->came(head);
  const std::span<const int32_t> chosen =
      setup_.chooser == nullptr ? std::span<const int32_t>() : setup_.chooser->wanted(head);
  const int64_t slice = setup_.chooser == nullptr ? 1 : setup_.chooser->slice_tokens();
  int64_t count = 0;
  for (const int32_t tile : tiles) count += setup_.pool.counts[tile];
  const HeadSlots in_use{.pool = setup_.pool, .tiles = tiles, .skip = 0, .count = count, .head_size = d};
  std::vector<float> keys(static_cast<size_t>(count * d)), values(keys.size());
  ReadKeys(in_use, keys.data());
  ReadValues(in_use, values.data());
  std::vector<double> rotated(static_cast<size_t>(d));
  std::vector<float> scratch(static_cast<size_t>(setup_.rope->row_floats()));
  std::vector<Slot> slots;
  for (int64_t g = 0; g < config.heads / config.kv_heads; ++g) {
    slots.clear();
    double largest = kLowest;
    int64_t row = 0;  // of the tile's first slot
    for (size_t t = 0; t < tiles.size(); row += setup_.pool.counts[tiles[t]], ++t) {
      const int32_t tile = tiles[t];
      const int64_t shift = shifts.empty() ? 0 : shifts[t];
      const auto of_back = std::find(back.begin(), back.end(), tile);
      RotateTo(q + g * d, setup_.rope->Row(position - shift - setup_.pool.bases[tile], scratch.data()),
               rotated);
      for (int32_t s = setup_.pool.starts[tile]; s < setup_.pool.counts[tile]; ++s) {
        if (setup_.pool.positions[int64_t{tile} * kTileSlots + s] + shift > position) continue;
        bool resident = true, seen = true;
        if (of_back != back.end()) {
          const size_t at = static_cast<size_t>((of_back - back.begin()) * kTileSlots + s);
          resident = false;
          seen = std::binary_search(chosen.begin(), chosen.end(), static_cast<int32_t>(came[at] / slice));
        }
        const int64_t first = (row + s) * d;
        const double logit = Product(rotated, keys.data() + first) / std::sqrt(static_cast<double>(d));
        largest = std::max(largest, logit);
        slots.push_back({values.data() + first, logit, resident, seen});
      }
    }
    Attention all(d), seen(d);
    double resident = 0;
    for (const Slot& slot : slots) {
      const double weight = std::exp(slot.logit - largest);
      all.Add(weight, slot.value);
      if (slot.seen) seen.Add(weight, slot.value);
      if (slot.resident) resident += weight;
    }
    AttentionShare& sum = sums_[static_cast<size_t>(head)];
    sum.resident += resident / all.mass;
    sum.seen += seen.mass / all.mass;
    sum.error += ErrorOf(seen, all);
  }
}

std::vector<AttentionShare> AttentionAudit::shares() const {
  const double count = static_cast<double>(std::max<int64_t>(1, rows_) * setup_.config->heads);
  std::vector<AttentionShare> layers(static_cast<size_t>(setup_.config->layers));
  for (size_t head = 0; head < sums_.size(); ++head) {
    AttentionShare& layer = layers[head / static_cast<size_t>(setup_.config->kv_heads)];
    layer.resident += sums_[head].resident / count;
    layer.seen += sums_[head].seen / count;
    layer.error += sums_[head].error / count;
  }
  return layers;
}

}  // namespace palimpsest
