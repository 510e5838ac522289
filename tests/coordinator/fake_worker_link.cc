#include "tests/coordinator/fake_worker_link.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest::testing {
namespace {

int64_t PromptTokens(const proto::GenerateRequest& request) {
  int64_t tokens = 0;
  for (const proto::PromptPart& part : request.parts()) tokens += part.tokens_size();
  return tokens;
}

proto::Hello FakeHello(int64_t arena_bytes, int64_t bytes_per_token) {
  proto::Hello hello;
  hello.set_version("test");
  hello.set_protocol(kWorkerProtocol);
  hello.set_cluster_id("test");
  hello.set_model_hash("model");
  hello.set_key_schema("schema");
  hello.set_address("fake");
  hello.set_arena_bytes(arena_bytes);
  hello.set_bytes_per_token(bytes_per_token);
  hello.set_window_tokens(1 << 20);
  return hello;
}

}  // namespace

int32_t FakeToken(const proto::GenerateRequest& request, int64_t place) {
  uint64_t hash = request.sampling().seed() * 1000003 + static_cast<uint64_t>(place);
  for (const proto::PromptPart& part : request.parts()) {
    for (const int32_t token : part.tokens()) hash = hash * 31 + static_cast<uint64_t>(token);
  }
  return static_cast<int32_t>((hash ^ (hash >> 29)) % 1000);
}

std::string FakeText(int32_t token) { return fmt::format("{} ", token); }

absl::Status FakeWorkerLink::Generate(const proto::GenerateRequest& request, const Listener& listener,
                                      const CancelToken& cancel) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    requests_.push_back(request);
  }
  if (dead_) return Error(absl::StatusCode::kUnavailable, "the fake worker is dead");
  const Script script = scripts_(request);
  PALIMPSEST_RETURN_IF_ERROR(script.refuse);
  running_most_ = std::max<int64_t>(running_most_, ++running_);
  absl::Status status = Play(request, script, listener, cancel);
  --running_;
  return status;
}

absl::Status FakeWorkerLink::Die() {
  dead_ = true;
  if (on_death) on_death();
  return Error(absl::StatusCode::kUnavailable, "the fake worker has died");
}

absl::Status FakeWorkerLink::Play(const proto::GenerateRequest& request, const Script& script,
                                  const Listener& listener, const CancelToken& cancel) {
  const absl::Status left = Error(absl::StatusCode::kCancelled, "the fake worker's call was cancelled");
  proto::GenerateEvent event;
  const int64_t total = PromptTokens(request);
  std::this_thread::sleep_for(script.before_prefill);
  for (int64_t i = 0; i <= script.prefill_events; ++i) {
    if (i == script.die_after_prefills) return Die();
    if (cancel.IsSet() || dead_) return left;
    if (i == script.prefill_events) break;
    event.mutable_prefill()->set_done_tokens(total * (i + 1) / script.prefill_events);
    event.mutable_prefill()->set_total_tokens(total);
    if (!listener(event)) return left;
  }
  const int64_t first = script.repeat_from >= 0 ? script.repeat_from : request.generated_size();
  const int64_t end = request.sampling().max_tokens();
  for (int64_t place = first; place < end || script.never_ends; ++place) {
    if (place - first == script.die_after_tokens) return Die();
    if (script.between_tokens > Duration::zero()) std::this_thread::sleep_for(script.between_tokens);
    if (cancel.IsSet()) return left;
    if (dead_) return Error(absl::StatusCode::kUnavailable, "the fake worker has died of another request");
    if (place == script.skip_token) continue;
    event.mutable_token()->set_sequence(place);
    event.mutable_token()->set_token(FakeToken(request, place));
    event.mutable_token()->set_text(FakeText(event.token().token()));
    if (!listener(event)) return left;
  }
  if (end - first == script.die_after_tokens) return Die();
  Finish(request, listener);
  return absl::OkStatus();
}

void FakeWorkerLink::Finish(const proto::GenerateRequest& request, const Listener& listener) const {
  proto::GenerateEvent event;
  proto::DoneEvent& done = *event.mutable_done();
  done.set_finish_reason("length");
  done.mutable_usage()->set_prompt_tokens(PromptTokens(request));
  done.mutable_usage()->set_completion_tokens(request.sampling().max_tokens());
  done.set_blocks(3);
  done.mutable_receipt()->mutable_spilled_bytes()->set_host(4096);
  done.mutable_receipt()->mutable_spilled_bytes()->set_ssd(2048);
  (void)listener(event);
}

std::vector<proto::GenerateRequest> FakeWorkerLink::requests() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return requests_;
}

FakeCluster::FakeCluster(FakeWorkerLink::Scripts scripts, int64_t arena_bytes)
    : scripts_(std::move(scripts)),
      arena_bytes_(arena_bytes),
      registry_(std::make_shared<Registry>(
          Registry::Identity{.version = "test", .cluster_id = "test", .model_hash = "model"}, RealClock())) {
  AddWorker();
}

bool FakeCluster::AddWorker() {
  auto link = std::make_shared<FakeWorkerLink>(scripts_);
  auto incarnation = std::make_shared<std::atomic<uint64_t>>(0);
  link->on_death = [this, incarnation] {
    while (*incarnation == 0) std::this_thread::yield();  // it is being told
    registry_->Leave(*incarnation);
    if (restart) AddWorker();
  };
  {
    const std::lock_guard<std::mutex> lock(mu_);
    links_.push_back(link);
  }
  const auto welcome = registry_->Join(FakeHello(arena_bytes_, bytes_per_token), link);
  if (!welcome.ok()) return false;
  *incarnation = welcome->incarnation();
  return true;
}

void FakeCluster::RemoveAll() {
  for (const Registry::Worker& worker : registry_->Alive()) registry_->Leave(worker.incarnation);
}

std::vector<std::shared_ptr<FakeWorkerLink>> FakeCluster::links() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return links_;
}

int64_t FakeCluster::running() const {
  int64_t running = 0;
  for (const auto& link : links()) running += link->running();
  return running;
}

}  // namespace palimpsest::testing
