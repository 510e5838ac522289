// The threads that ingest.
#include <algorithm>
#include <utility>

#include "coordinator/documents.h"
#include "proto/base/log.h"
#include "proto/base/status.h"
#include "storage/tile_arena.h"

namespace palimpsest {

using Phase = DocumentState::Phase;

// REQUIRES: mu_.
void Documents::StartThread() {
  if (idle_ >= static_cast<int64_t>(waiting_.size())) return;
  if (static_cast<int64_t>(threads_.size()) >= options_.threads) return;
  threads_.emplace_back([this] { Work(); });
}

void Documents::Work() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    ++idle_;
    work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    --idle_;
    if (stopping_) return;
    const Key key = std::move(waiting_.front());
    waiting_.pop_front();
    Entry& entry = entries_.at(key);  // Delete takes both away
    entry.busy = true;
    entry.cancel = std::make_shared<CancelToken>();
    entry.state.phase = Phase::kReading;
    ++busy_;
    const std::shared_ptr<CancelToken> cancel = entry.cancel;
    lock.unlock();
    changed_.notify_all();
    const absl::Status status = IngestOne(key, *cancel);
    lock.lock();
    --busy_;
    Finish(key, status);
    changed_.notify_all();
  }
}

namespace {

int64_t BlocksOf(const PromptSegment& segment) {
  return (static_cast<int64_t>(segment.tokens.size()) + kTileSlots - 1) / kTileSlots;
}

// A worker counts the blocks of the last part, in all layers: here the last span. This times as many are all
// of the document's, divided by `last`.
struct SpanBlocks {
  int64_t all = 0, last = 1;
};
SpanBlocks SpanBlocksOf(const PromptPlan& plan) {
  SpanBlocks blocks;
  for (const PromptSegment& segment : plan.segments) {
    if (segment.kind != PromptSegment::Kind::kDocument) continue;
    blocks.last = BlocksOf(segment);
    blocks.all += blocks.last;
  }
  return blocks;
}

}  // namespace

absl::Status Documents::IngestOne(const Key& key, const CancelToken& cancel) {
  PALIMPSEST_ASSIGN_OR_RETURN(Found found, Find(key.second, key.first));
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlan plan, options_.planner->PlanDocument(std::move(found.document)));
  const SpanBlocks blocks = SpanBlocksOf(plan);
  proto::GenerateRequest request = options_.make_request(std::move(plan), key.first);
  request.set_request_id("ingest-" + key.second);
  absl::Status status = options_.dispatcher->Run(
      std::move(request), [&](const proto::GenerateEvent& event) { return OnEvent(key, event); }, cancel);
  const std::lock_guard<std::mutex> lock(mu_);
  DocumentState& state = entries_.at(key).state;  // busy: nobody takes it away
  state.blocks = state.blocks * blocks.all / blocks.last;
  return status;
}

bool Documents::OnEvent(const Key& key, const proto::GenerateEvent& event) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    DocumentState& state = entries_.at(key).state;  // busy: nobody takes it away
    if (event.has_prefill()) {
      state.done_tokens = event.prefill().done_tokens();
      state.total_tokens = event.prefill().total_tokens();
    } else if (event.has_done()) {
      state.blocks = event.done().blocks();
      state.host_bytes = event.done().receipt().spilled_bytes().host();
      state.ssd_bytes = event.done().receipt().spilled_bytes().ssd();
    }
  }
  changed_.notify_all();
  return true;
}

// REQUIRES: mu_.
void Documents::Finish(const Key& key, const absl::Status& status) {
  Entry& entry = entries_.at(key);
  const bool cancelled = entry.cancel->IsSet();
  entry.busy = false;
  entry.cancel = nullptr;
  DocumentState& state = entry.state;
  if (status.ok()) {
    state.phase = Phase::kReady;
    state.seconds = Seconds(options_.clock->Now() - entry.added);
    entry.unread = false;
  } else if (cancelled && stopping_) {
    state.phase = Phase::kWaiting;  // for who starts this again
    return;
  } else if (cancelled) {  // by its delete, which may have given up on it
    state.phase = Phase::kFailed;
    state.error = "its ingestion was stopped by a delete; add it again";
  } else {
    state.phase = Phase::kFailed;
    state.error = Message(status);
    PALIMPSEST_LOG(kWarn, "ingestion failed document {} status {}", LogName(key.second), status);
  }
  Remember(key);
}

// REQUIRES: mu_. Forgets the oldest that are over and nobody waits for.
void Documents::Remember(const Key& key) {
  finished_.push_back(key);
  while (finished_.size() > kFinishedMax) {
    const auto oldest = entries_.find(finished_.front());
    finished_.pop_front();
    if (oldest == entries_.end()) continue;
    const Phase phase = oldest->second.state.phase;
    if (phase == Phase::kReady || phase == Phase::kFailed) entries_.erase(oldest);
  }
}

void Documents::StopIngesting() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
    for (auto& [key, entry] : entries_) {
      if (entry.busy) entry.cancel->Set();
    }
    threads = std::move(threads_);
    threads_.clear();
  }
  work_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace palimpsest
