#include "worker/recall/document_index.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace palimpsest {

std::shared_ptr<const DocumentIndex> DocumentIndex::Load(TieredStore& store, DigestKind kind,
                                                         std::vector<IndexedBlock> blocks) {
  auto index = std::make_shared<DocumentIndex>();
  const int64_t heads = store.shape().tiles(), bytes = DigestBytes(kind, store.shape().head_size);
  const size_t count = blocks.size();
  index->kind_ = kind;
  index->data_ = AlignedBuffer<uint8_t>(heads * static_cast<int64_t>(count) * bytes);
  index->digests_.reserve(static_cast<size_t>(heads) * count);
  for (int64_t offset = 0; offset < index->data_.size(); offset += bytes)
    index->digests_.push_back(index->data_.data() + offset);
  index->counts_.assign(count, 0);
  constexpr size_t kAhead = 64;  // blocks that are read ahead
  std::vector<BlockId> ids;
  ids.reserve(count);
  for (const IndexedBlock& block : blocks) ids.push_back(block.id);
  for (size_t b = 0; b < count; ++b) {
    if (b % kAhead == 0) {
      store.PrefetchDigests(kind, std::span(ids).subspan(b, std::min(2 * kAhead, count - b)));
    }
    const IndexedBlock& block = blocks[b];
    const std::optional<TieredStore::Digests> digests =
        store.ReadDigests(kind, block.id, block.position, block.rows);
    if (!digests.has_value()) {
      index->missing_tokens_ += block.rows;
      continue;
    }
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t place = head * static_cast<int64_t>(count) + static_cast<int64_t>(b);
      std::memcpy(index->data_.data() + place * bytes, digests->data + head * bytes,
                  static_cast<size_t>(bytes));
    }
    index->counts_[b] = static_cast<int32_t>(block.rows);
  }
  index->blocks_ = std::move(blocks);
  return index;
}

std::shared_ptr<const DocumentIndex> IndexCache::Find(DigestKind kind, std::span<const IndexedBlock> blocks) {
  const auto same = [&](const std::shared_ptr<const DocumentIndex>& index) {
    return index->kind() == kind && index->blocks().size() == blocks.size() &&
           std::equal(blocks.begin(), blocks.end(), index->blocks().begin(),
                      [](const IndexedBlock& a, const IndexedBlock& b) {
                        return a.id == b.id && a.first == b.first && a.position == b.position;
                      });
  };
  const auto entry = std::find_if(entries_.begin(), entries_.end(), same);
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entries_.front();
}

void IndexCache::Put(std::shared_ptr<const DocumentIndex> index) {
  if (index->bytes() > capacity_ || index->missing_tokens() > 0) return;
  while (bytes_ + index->bytes() > capacity_) {
    bytes_ -= entries_.back()->bytes();
    entries_.pop_back();
  }
  bytes_ += index->bytes();
  entries_.push_front(std::move(index));
}

}  // namespace palimpsest
