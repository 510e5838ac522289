// Who may run, who waits and who is refused. Plain data: no lock, no thread, no clock of its own.
//
// Order : the tenant with the fewest tokens running and waiting comes first; each second of waiting counts as
//         kAgeTokensPerSecond fewer, so nobody is passed over for ever. Within a tenant, in order of arrival.
// Room  : as many as `running`, whose worst cases fit the workers' device memory together, so that a worker's
//         own queue stays short. What does not fit lets smaller ones pass for kPassedOver, then they wait for
//         it. A request alone is always let in: it was compared with the biggest worker before it came here.
// Errors: Unavailable with RetryAfter, with the numbers.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/clock.h"

namespace palimpsest {

class Admission {
 public:
  struct Limits {
    int64_t running = 0;         // requests at once; each choice of a request is one
    int64_t waiting = 0;         // requests
    int64_t waiting_tokens = 0;  // prompt tokens of those that wait
    int64_t waiting_seconds = 0;
  };
  // What a request will need.
  struct Need {
    int64_t prompt_tokens = 0;
    int64_t answer_tokens = 0;  // of all choices at most
    int64_t bytes = 0;          // of KV in the worst case
    int64_t slots = 1;          // choices
  };
  // What the workers have, from their beats.
  struct Capacity {
    int64_t bytes = 0;                     // of all arenas; 0: no worker, nobody is let in
    double prefill_tokens_per_second = 0;  // of all workers; 0: not measured yet
    double decode_tokens_per_second = 0;   // the same, of all sessions together
  };
  using Id = uint64_t;

  explicit Admission(Limits limits) : limits_(limits) {}

  // A place in the queue for a request whose need is not known yet, or a refusal; cheap. A tenant that has a
  // name has three quarters of the places at most.
  absl::StatusOr<Id> Enter(const std::string& tenant, const Capacity& capacity, TimePoint now);
  // It can be let in from now on. Refused if its tokens are too many beside those that wait: then Leave.
  absl::Status SetNeed(Id id, const Need& need, const Capacity& capacity);
  // Lets in whom it can.
  void Grant(const Capacity& capacity, TimePoint now);
  bool running(Id id) const { return entries_.at(id).running; }
  // It is done, or gives up.
  void Leave(Id id);

  // For a request that waited too long.
  absl::Status WaitedTooLong(Id id, const Capacity& capacity, TimePoint now) const;

  int64_t running_requests() const { return running_requests_; }
  int64_t running_bytes() const { return running_bytes_; }
  int64_t waiting_requests() const { return static_cast<int64_t>(entries_.size()) - running_requests_; }
  int64_t waiting_tokens() const { return waiting_tokens_; }

  static constexpr int64_t kAgeTokensPerSecond = 1024;
  static constexpr Duration kPassedOver = std::chrono::seconds(5);

 private:
  struct Entry {
    std::string tenant;
    Need need;
    TimePoint arrived;
    bool known = false;  // its need
    bool running = false;
  };
  std::vector<Id> InTurn(TimePoint now) const;
  bool Fits(const Need& need, const Capacity& capacity) const;
  int64_t SecondsUntilRoom(const Capacity& capacity) const;
  int64_t WaitingOf(const std::string& tenant) const;

  const Limits limits_;
  std::map<Id, Entry> entries_;            // in order of arrival
  std::map<std::string, int64_t> tokens_;  // of each tenant's entries
  Id next_ = 1;
  int64_t running_requests_ = 0, running_slots_ = 0, running_bytes_ = 0, running_answer_tokens_ = 0;
  int64_t waiting_tokens_ = 0, waiting_answer_tokens_ = 0;
};

}  // namespace palimpsest
