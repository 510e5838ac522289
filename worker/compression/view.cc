#include "worker/compression/view.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {

void RestHead::Append(int32_t token, const RestToken& at, int64_t head_size) {
  tokens.push_back(token);
  rest.insert(rest.end(), at.key, at.key + head_size);
  rest.insert(rest.end(), at.value, at.value + head_size);
}

int64_t View::tokens_max() const {
  size_t most = 0;
  for (const RestHead& head : heads) most = std::max(most, head.tokens.size());
  return static_cast<int64_t>(most);
}

int64_t View::bytes() const {
  size_t bytes = losses.size() * sizeof(float);
  if (moments != nullptr) bytes += static_cast<size_t>(moments->bytes());
  for (const RestHead& head : heads) {
    bytes += head.tokens.size() * sizeof(int32_t) + head.rest.size() * sizeof(Bf16) +
             (head.scores.size() + head.rest_scores.size() + head.sums.size()) * sizeof(float);
  }
  return static_cast<int64_t>(bytes);
}

const RestBlock& BlockOf(std::span<const RestBlock> blocks, int64_t token) {
  const auto after = std::upper_bound(blocks.begin(), blocks.end(), token,
                                      [](int64_t t, const RestBlock& block) { return t < block.first; });
  PALIMPSEST_CHECK(after != blocks.begin() && token < (after - 1)->first + (after - 1)->rows,
                   "token {} is in none of {} blocks", token, blocks.size());
  return *(after - 1);
}

namespace {

// Those at `order`, ascending, of what is there and of the rivals behind it.
void Take(std::span<const int32_t> order, int64_t head_size, const Rivals& rivals, RestHead* kept) {
  const size_t old = kept->tokens.size();
  RestHead next;
  next.tokens.reserve(order.size());
  next.scores.reserve(order.size());
  next.rest.reserve(order.size() * 2 * static_cast<size_t>(head_size));
  for (const int32_t place : order) {
    const size_t i = static_cast<size_t>(place);
    const bool there = i < old;
    next.Append(there ? kept->tokens[i] : rivals.tokens[i - old],
                there ? kept->At(i, head_size) : rivals.at[i - old], head_size);
    next.scores.push_back(there ? kept->scores[i] : rivals.ranking.scores[i - old]);
    if (!rivals.ranking.rest.empty() || !kept->rest_scores.empty()) {
      next.rest_scores.push_back(there ? kept->rest_scores[i] : rivals.ranking.rest[i - old]);
    }
  }
  *kept = std::move(next);
}

std::vector<float> Joined(std::span<const float> a, std::span<const float> b) {
  std::vector<float> all(a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

}  // namespace

void Compete(int64_t budget, int64_t head_size, const Rivals& rivals, RestHead* kept) {
  std::vector<int32_t> order, by_rest;
  SelectTop(Joined(kept->scores, rivals.ranking.scores), budget, &order);
  if (!rivals.ranking.rest.empty()) {
    SelectTop(Joined(kept->rest_scores, rivals.ranking.rest), budget, &by_rest);
    const std::vector<int32_t> by_scores = std::move(order);
    order.clear();
    std::set_union(by_scores.begin(), by_scores.end(), by_rest.begin(), by_rest.end(),
                   std::back_inserter(order));
  }
  Take(order, head_size, rivals, kept);
}

void KeepBest(int64_t count, double first_share, int64_t head_size, RestHead* kept) {
  std::vector<int32_t> order;
  SelectTop(Ranking{kept->scores, kept->rest_scores, first_share}, count, &order);
  if (order.size() < kept->tokens.size()) Take(order, head_size, {}, kept);
  kept->rest_scores.clear();
}

Sequence::Packing PackAtRest(const RestHead& head, int64_t head_size, int64_t first_position) {
  Sequence::Packing packing;
  packing.sources.reserve(head.tokens.size());
  packing.positions.resize(head.tokens.size());
  for (size_t i = 0; i < head.tokens.size(); ++i) {
    const RestToken at = head.At(i, head_size);
    packing.sources.push_back({.key = at.key, .value = at.value});
  }
  std::iota(packing.positions.begin(), packing.positions.end(), static_cast<int32_t>(first_position));
  return packing;
}

std::vector<Sequence::Packing> PackInPlace(const View& view, int64_t head_size) {
  std::vector<Sequence::Packing> heads = PackAtRest(view, head_size, 0);
  for (size_t i = 0; i < heads.size(); ++i) heads[i].positions = view.heads[i].tokens;
  return heads;
}

std::vector<Sequence::Packing> PackAtRest(const View& view, int64_t head_size, int64_t first_position) {
  std::vector<Sequence::Packing> heads;
  heads.reserve(view.heads.size());
  const int64_t end = first_position + view.tokens_max();
  for (const RestHead& head : view.heads)
    heads.push_back(PackAtRest(head, head_size, end - static_cast<int64_t>(head.tokens.size())));
  return heads;
}

std::shared_ptr<const View> ViewCache::Find(const Hash256& key) {
  const auto entry =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entry->view;
}

void ViewCache::Put(const Hash256& key, std::shared_ptr<const View> view) {
  const int64_t bytes = view->bytes();
  if (bytes > capacity_ || Find(key) != nullptr) return;
  while (bytes_ + bytes > capacity_) {
    bytes_ -= entries_.back().view->bytes();
    entries_.pop_back();
  }
  bytes_ += bytes;
  entries_.push_front({key, std::move(view)});
}

}  // namespace palimpsest
