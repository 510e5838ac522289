#include "coordinator/registry.h"

#include <algorithm>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// How often a wait looks at its cancel token, which cannot wake it.
constexpr Duration kLook = std::chrono::milliseconds(20);
constexpr size_t kNameBytesMax = 1024;  // of one value in a message

absl::Status Differs(const proto::Hello& hello, std::string_view what, std::string_view theirs,
                     std::string_view ours, std::string_view remedy) {
  return FailedPrecondition("worker at {}: {} {}, the coordinator {} {}; {}", OneLine(hello.address()), what,
                            Quoted(theirs, kNameBytesMax), what == "key schema" ? "has workers of" : "serves",
                            Quoted(ours, kNameBytesMax), remedy);
}

absl::Status CheckHello(const proto::Hello& hello, const Registry::Identity& identity) {
  if (hello.cluster_id() != identity.cluster_id) {
    return Differs(hello, "cluster id", hello.cluster_id(), identity.cluster_id, "set cluster.id the same");
  }
  if (hello.protocol() != kWorkerProtocol) {
    return Differs(hello, "protocol", std::to_string(hello.protocol()), std::to_string(kWorkerProtocol),
                   "run the same program on both");
  }
  if (hello.version() != identity.version) {
    return Differs(hello, "version", hello.version(), identity.version, "run the same program on both");
  }
  if (hello.model_hash() != identity.model_hash) {
    return Differs(hello, "model hash", hello.model_hash(), identity.model_hash,
                   "give both the same model file");
  }
  if (hello.arena_bytes() < 0 || hello.bytes_per_token() < 1 || hello.window_tokens() < 1) {
    return InvalidArgument("worker at {}: arena_bytes {} bytes_per_token {} window_tokens {} make no sense",
                           OneLine(hello.address()), hello.arena_bytes(), hello.bytes_per_token(),
                           hello.window_tokens());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<proto::Welcome> Registry::Join(const proto::Hello& hello, std::shared_ptr<WorkerLink> link) {
  PALIMPSEST_RETURN_IF_ERROR(CheckHello(hello, identity_));
  proto::Welcome welcome;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (key_schema_.has_value() && *key_schema_ != hello.key_schema()) {
      return Differs(hello, "key schema", hello.key_schema(), *key_schema_,
                     "start it with the same numerics and block format");
    }
    key_schema_ = hello.key_schema();
    Worker worker{.incarnation = next_incarnation_++,
                  .hello = hello,
                  .status = {},
                  .heard = clock_.Now(),
                  .leaving = false,
                  .link = std::move(link)};
    worker.status.set_incarnation(worker.incarnation);
    worker.status.set_arena_bytes(hello.arena_bytes());
    welcome.set_incarnation(worker.incarnation);
    welcome.set_lease_millis(std::chrono::duration_cast<std::chrono::milliseconds>(identity_.lease).count());
    workers_.emplace(worker.incarnation, std::move(worker));
    ++joins_;
  }
  changed_.notify_all();
  if (hello.address().empty()) return welcome;  // in this process: nobody watches it
  PALIMPSEST_LOG(kInfo, "worker joined address {} incarnation {} process {} arena_bytes {}",
                 LogName(hello.address()), welcome.incarnation(), hello.process_id(), hello.arena_bytes());
  return welcome;
}

bool Registry::Beat(uint64_t incarnation, const proto::Beat& beat) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = workers_.find(incarnation);
  if (found == workers_.end()) return false;
  Worker& worker = found->second;
  worker.heard = clock_.Now();
  worker.leaving = worker.leaving || beat.leaving();
  if (beat.has_status()) {
    worker.status = beat.status();
    worker.status.set_incarnation(incarnation);
  }
  return true;
}

void Registry::Leave(uint64_t incarnation) {
  Worker gone;  // its link is destroyed without the lock
  {
    const std::lock_guard<std::mutex> lock(mu_);
    const auto found = workers_.find(incarnation);
    if (found == workers_.end()) return;
    gone = std::move(found->second);
    workers_.erase(found);
  }
  changed_.notify_all();
  PALIMPSEST_LOG(kInfo, "worker left address {} incarnation {}", LogName(gone.hello.address()), incarnation);
}

int64_t Registry::Expire() {
  std::vector<Worker> gone;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    for (auto i = workers_.begin(); i != workers_.end();) {
      if (clock_.Now() - i->second.heard <= identity_.lease) {
        ++i;
        continue;
      }
      gone.push_back(std::move(i->second));
      i = workers_.erase(i);
    }
  }
  if (!gone.empty()) changed_.notify_all();
  for (const Worker& worker : gone) {
    PALIMPSEST_LOG(kWarn, "worker silent for its lease address {} incarnation {} lease_seconds {:.1f}",
                   LogName(worker.hello.address()), worker.incarnation, Seconds(identity_.lease));
  }
  return static_cast<int64_t>(gone.size());
}

std::vector<Registry::Worker> Registry::Alive() const {
  std::vector<Worker> alive;
  const std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [incarnation, worker] : workers_) {
    if (!worker.leaving) alive.push_back(worker);
  }
  return alive;
}

bool Registry::WaitForOne(Duration limit, const CancelToken& cancel) const {
  // The wait is real time, whatever the clock of the leases: a test's clock does not wake anybody.
  const TimePoint end = AddSaturated(std::chrono::steady_clock::now(), limit);
  const auto alive = [this] {
    return std::any_of(workers_.begin(), workers_.end(), [](const auto& w) { return !w.second.leaving; });
  };
  std::unique_lock<std::mutex> lock(mu_);
  while (!alive()) {
    const TimePoint now = std::chrono::steady_clock::now();
    if (now >= end || cancel.IsSet()) return false;
    changed_.wait_for(lock, std::min<Duration>(kLook, end - now));
  }
  return !cancel.IsSet();
}

int64_t Registry::joins() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return joins_;
}

}  // namespace palimpsest
