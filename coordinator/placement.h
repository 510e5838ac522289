// Which worker gets a request: the one that has the least left to compute before it, and then of it. A worker
// that has served the same documents or the same conversation so far has part of it already, so requests stay
// where their blocks are until that worker is busier by more than they would save. Plain data: no lock, no
// thread.
//
// Keys are seeded with the request's cache domain: a tenant's requests go where that tenant's went, and
// nobody's routing tells about another's. What is remembered is a guess; being wrong costs a prefill and
// nothing else.
// Memory : kRememberedMax places, the longest unused forgotten first.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "proto/worker.pb.h"

namespace palimpsest {

// The beginnings of a prompt that could be found again, shortest first.
struct PromptBeginning {
  uint64_t key = 0;
  int64_t tokens = 0;
};
std::vector<PromptBeginning> BeginningsOf(const proto::GenerateRequest& request);

class Placement {
 public:
  static constexpr size_t kRememberedMax = 1 << 16;

  // One of `workers` (by incarnation, alive); nullopt if there is none.
  std::optional<uint64_t> Choose(const std::vector<uint64_t>& workers,
                                 const std::vector<PromptBeginning>& beginnings) const;
  // The worker has `tokens` more to compute; they are taken off again when the request is done.
  void Begin(uint64_t worker, int64_t tokens) { load_[worker] += tokens; }
  void End(uint64_t worker, int64_t tokens);
  // It reads this prompt.
  void Remember(uint64_t worker, const std::vector<PromptBeginning>& beginnings);

 private:
  struct Place {
    uint64_t key = 0;
    uint64_t worker = 0;  // that read it last
  };
  std::list<Place> places_;  // the last used first
  std::unordered_map<uint64_t, std::list<Place>::iterator> by_key_;
  std::unordered_map<uint64_t, int64_t> load_;  // tokens, by worker; none for idle ones
};

}  // namespace palimpsest
