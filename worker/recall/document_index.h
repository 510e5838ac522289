// The index of a document: the digests of its blocks, head by head, as recall scans them.
//
// Owns   : a copy of the digests, of one head behind the other as they are read for each token: from where
// the
//          tiers gave them, block by block, reading took 1.7 times as long. Of a document that is asked again
//          they are still there.
// Memory : DigestBytes of each tile; it grows with the document, in host memory, not on the device.
// Threads: immutable once it is loaded; any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "kernels/digest.h"
#include "kernels/tensor.h"
#include "proto/base/ids.h"
#include "storage/tiered_store.h"

namespace palimpsest {

// A block of a document, as its session places it.
struct IndexedBlock {
  BlockId id;
  int64_t first = 0, rows = 0;  // tokens of the prompt
  int64_t position = 0;         // of its keys when it was sealed
};

class DocumentIndex {
 public:
  // From the tiers, or made of the blocks they hold; what neither gives is not found by any question.
  static std::shared_ptr<const DocumentIndex> Load(TieredStore& store, DigestKind kind,
                                                   std::vector<IndexedBlock> blocks);

  DigestKind kind() const { return kind_; }
  std::span<const IndexedBlock> blocks() const { return blocks_; }
  // Of head layer * kv_heads + kv_head, one for each block.
  std::span<const uint8_t* const> digests(int64_t head) const {
    return std::span(digests_).subspan(static_cast<size_t>(head) * blocks_.size(), blocks_.size());
  }
  std::span<const int32_t> counts() const { return counts_; }  // tokens of each block that can be found
  int64_t missing_tokens() const { return missing_tokens_; }
  int64_t bytes() const { return data_.size(); }

 private:
  DigestKind kind_ = DigestKind::kQ2;
  std::vector<IndexedBlock> blocks_;
  AlignedBuffer<uint8_t> data_;          // (heads, blocks, DigestBytes); of zeros: it holds no token
  std::vector<const uint8_t*> digests_;  // (heads, blocks)
  std::vector<int32_t> counts_;          // (blocks)
  int64_t missing_tokens_ = 0;
};

// Indices of documents that were asked, the least recently used first to go.
class IndexCache {
 public:
  explicit IndexCache(int64_t capacity_bytes) : capacity_(capacity_bytes) {}
  // Of exactly these blocks, by the last one's name and their number.
  std::shared_ptr<const DocumentIndex> Find(DigestKind kind, std::span<const IndexedBlock> blocks);
  void Put(std::shared_ptr<const DocumentIndex> index);
  int64_t bytes() const { return bytes_; }

 private:
  const int64_t capacity_;
  int64_t bytes_ = 0;
  std::list<std::shared_ptr<const DocumentIndex>> entries_;  // most recent first
};

}  // namespace palimpsest
