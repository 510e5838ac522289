#include "coordinator/placement.h"

#include <cstring>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Of a conversation every so many tokens are a beginning of their own: its next turn has all but the last
// ones.
constexpr int64_t kTurnTokens = 256;
constexpr size_t kBeginningsMax = 256;  // of one prompt

// One step of splitmix64 over what came before and the next token.
uint64_t Mix(uint64_t key, uint64_t next) {
  uint64_t z = (key ^ next) + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t SeedOf(const std::string& domain) {
  uint64_t seed = 0;
  for (const char c : domain) seed = Mix(seed, static_cast<uint8_t>(c));
  return seed;
}

}  // namespace

std::vector<PromptBeginning> BeginningsOf(const proto::GenerateRequest& request) {
  std::vector<PromptBeginning> beginnings;
  uint64_t key = SeedOf(request.cache_domain());
  int64_t tokens = 0;
  for (const proto::PromptPart& part : request.parts()) {
    if (part.sharing() == proto::PromptPart::OWN) break;
    int64_t of_part = 0;
    for (const int32_t token : part.tokens()) {
      key = Mix(key, static_cast<uint32_t>(token));
      ++tokens;
      const bool turn = part.sharing() == proto::PromptPart::FULL_BLOCKS && ++of_part % kTurnTokens == 0;
      if (turn && beginnings.size() < kBeginningsMax) beginnings.push_back({key, tokens});
    }
    key = Mix(key, ~uint64_t{0});  // a part starts a block of its own
    if (part.sharing() == proto::PromptPart::WHOLE && beginnings.size() < kBeginningsMax) {
      beginnings.push_back({key, tokens});
    }
  }
  return beginnings;
}

std::optional<uint64_t> Placement::Choose(const std::vector<uint64_t>& workers,
                                          const std::vector<PromptBeginning>& beginnings) const {
  std::unordered_map<uint64_t, int64_t> has;  // tokens of this prompt, by worker
  for (const PromptBeginning& beginning : beginnings) {
    const auto found = by_key_.find(beginning.key);
    if (found != by_key_.end()) has[found->second->worker] = beginning.tokens;
  }
  std::optional<uint64_t> best;
  int64_t best_tokens = 0;
  for (const uint64_t worker : workers) {
    const auto load = load_.find(worker);
    const auto cached = has.find(worker);
    const int64_t tokens =
        (load == load_.end() ? 0 : load->second) - (cached == has.end() ? 0 : cached->second);
    if (!best.has_value() || tokens < best_tokens) best = worker, best_tokens = tokens;
  }
  return best;
}

void Placement::End(uint64_t worker, int64_t tokens) {
  const auto load = load_.find(worker);
  PALIMPSEST_CHECK(load != load_.end() && load->second >= tokens, "worker {} has not begun {} tokens", worker,
                   tokens);
  load->second -= tokens;
  if (load->second == 0) load_.erase(load);
}

void Placement::Remember(uint64_t worker, const std::vector<PromptBeginning>& beginnings) {
  for (const PromptBeginning& beginning : beginnings) {
    const auto found = by_key_.find(beginning.key);
    if (found != by_key_.end()) {
      found->second->worker = worker;
      places_.splice(places_.begin(), places_, found->second);
      continue;
    }
    places_.push_front({beginning.key, worker});
    by_key_[beginning.key] = places_.begin();
    if (places_.size() > kRememberedMax) {
      by_key_.erase(places_.back().key);
      places_.pop_back();
    }
  }
}

}  // namespace palimpsest
