#include "text/bpe.h"

#include <algorithm>
#include <queue>

namespace palimpsest {
namespace {

constexpr size_t kShortWordBytes = 48;  // up to here a scan for the best pair is faster than a heap

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

void Bpe::AddMerge(int32_t left, int32_t right, int32_t result) {
  merges_.try_emplace(PairKey(left, right), Merge{next_rank_++, result});
}

Bpe::Merge Bpe::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));  // -1 is no part of any merge
  return found == merges_.end() ? Merge{kNoMerge, -1} : found->second;
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.size() <= kShortWordBytes) {
    EncodeShort(word, ids);
  } else {
    EncodeLong(word, ids);
  }
}

void Bpe::EncodeShort(std::string_view word, std::vector<int32_t>* ids) const {
  int32_t symbols[kShortWordBytes];  // first `count` are in use
  Merge pairs[kShortWordBytes];      // pairs[i]: symbols i and i + 1
  int count = static_cast<int>(word.size());
  for (int i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  for (int i = 0; i + 1 < count; ++i) pairs[i] = Find(symbols[i], symbols[i + 1]);

  while (count > 1) {
    const int best = static_cast<int>(
        std::min_element(pairs, pairs + count - 1, [](Merge a, Merge b) { return a.rank < b.rank; }) - pairs);
    if (pairs[best].rank == kNoMerge) break;
    symbols[best] = pairs[best].result;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(pairs + best + 1, pairs + count - 1, pairs + best);
    --count;
    if (best > 0) pairs[best - 1] = Find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) pairs[best] = Find(symbols[best], symbols[best + 1]);
  }
  std::copy_if(symbols, symbols + count, std::back_inserter(*ids), [](int32_t id) { return id >= 0; });
}

void Bpe::EncodeLong(std::string_view word, std::vector<int32_t>* ids) const {
  constexpr int32_t kEnd = -1;     // no neighbour
  constexpr int32_t kJoined = -2;  // id of a symbol that its left neighbour took in
  struct Symbol {
    int32_t id, left, right;  // neighbours by index
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;                 // index of the left symbol
    int32_t left_id, right_id;  // a symbol only grows, so equal ids mean that the pair is still the same
    bool operator<(const Candidate& other) const {  // the queue's top is its greatest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  std::vector<Candidate> candidates;
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < count ? i + 1 : kEnd};
    if (i == 0) continue;
    const Merge merge = Find(symbols[i - 1].id, symbols[i].id);
    if (merge.rank != kNoMerge) candidates.push_back({merge.rank, i - 1, symbols[i - 1].id, symbols[i].id});
  }
  std::priority_queue<Candidate> queue({}, std::move(candidates));
  const auto consider = [&](int32_t left, int32_t right) {
    if (left == kEnd || right == kEnd) return;
    const Merge merge = Find(symbols[left].id, symbols[right].id);
    if (merge.rank != kNoMerge) queue.push({merge.rank, left, symbols[left].id, symbols[right].id});
  };

  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left_id || left.right == kEnd || symbols[left.right].id != best.right_id) continue;
    Symbol& right = symbols[left.right];
    left.id = Find(best.left_id, best.right_id).result;
    left.right = right.right;
    right.id = kJoined;
    if (left.right != kEnd) symbols[left.right].left = best.at;
    consider(left.left, best.at);
    consider(best.at, left.right);
  }
  for (int32_t i = 0; i != kEnd; i = symbols[i].right) {
    if (symbols[i].id >= 0) ids->push_back(symbols[i].id);
  }
}

}  // namespace palimpsest
