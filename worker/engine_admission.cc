// Who holds device memory: who is let in, who gives way, and what of the shared blocks is whose to compute.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

// How long a request that waits for much room lets smaller ones pass.
constexpr double kPassedSecondsMax = 5;
// How long, in all, a background request has waited when it becomes as urgent as the others: it is let in by
// its arrival and gives way no more.
constexpr double kWaitedSecondsMax = 30;

}  // namespace

// Those that somebody waits for come first, then the background; both in order of arrival.
void Engine::AdmitWaiting() {
  for (auto& job : jobs_) {
    if (job->state != Job::State::kWaiting) continue;
    if (job->waited_seconds + Since(job->waiting_since) > kWaitedSecondsMax) job->gives_way = false;
  }
  for (const bool background : {false, true}) {
    for (auto& job : jobs_) {
      if (job->state != Job::State::kWaiting || job->gives_way != background) continue;
      if (!background) MakeRoom(*job);
      if (Admit(*job)) continue;
      if (Since(job->waiting_since) > kPassedSecondsMax) return;
    }
  }
}

bool Engine::Fits(const Job& job) const {
  return reserved_tiles_ + job.worst_tiles <= arena_->capacity_tiles();
}

bool Engine::Admit(Job& job) {
  if (!Fits(job)) return false;
  job.held_tiles = job.worst_tiles;
  reserved_tiles_ += job.held_tiles;
  const TimePoint now = options_.clock->Now();
  job.waited_seconds += Seconds(now - job.waiting_since);
  if (!job.was_admitted) job.admitted = now, job.tiers_before = mover_->stats();
  job.was_admitted = true;
  job.last_rows = now;
  job.sequence = NewSequence(job);
  if (job.max_tokens > 0 && job.sampler == nullptr) {
    job.sampler = std::make_unique<Sampler>(job.request.sampling, config_.vocabulary, job.tokens);
    job.outcome.tokens.reserve(static_cast<size_t>(job.max_tokens));
    // A token is 4 bytes or so; what goes on for longer pays a copy each time the text has doubled.
    constexpr int64_t kTextBytesPerToken = 8, kTextBytesMax = 1 << 16;
    job.outcome.text.reserve(
        std::max(job.outcome.text.size(),
                 static_cast<size_t>(std::min(job.max_tokens * kTextBytesPerToken, kTextBytesMax))));
  }
  job.state = Job::State::kPrompt;
  if (job.compression != nullptr) StartCompression(job);
  return true;
}

// Stops background requests, the newest first, if that makes room for this one.
void Engine::MakeRoom(const Job& job) {
  if (Fits(job)) return;
  int64_t could_go = 0;
  for (const auto& other : jobs_) {
    if (other->sequence != nullptr && other->gives_way) could_go += other->held_tiles;
  }
  if (reserved_tiles_ - could_go + job.worst_tiles > arena_->capacity_tiles()) return;
  for (auto other = jobs_.rbegin(); other != jobs_.rend() && !Fits(job); ++other) {
    if ((*other)->sequence != nullptr && (*other)->gives_way) GiveWay(**other);
  }
}

void Engine::GiveWay(Job& job) {
  Restart(job);
  ++job.gave_way;
  ++stats_.preemptions;
}

// It waits again; then what it sealed is found, and the rest is run again.
void Engine::Restart(Job& job) {
  Release(job);
  job.tokens.resize(static_cast<size_t>(job.prompt_tokens));
  job.tokens.insert(job.tokens.end(), job.outcome.tokens.begin(), job.outcome.tokens.end());
  job.prefilled = 0;
  job.next_block = job.next_seal = job.prefetched = 0;
  job.state = Job::State::kWaiting;
  job.waiting_since = options_.clock->Now();
}

// Gives back what it holds of the device; sealed blocks stay, unpinned.
void Engine::Release(Job& job) {
  if (job.sequence == nullptr) return;
  const size_t end = std::min(job.next_block + 1, job.blocks.size());
  for (size_t i = job.next_seal; i < end; ++i) Unclaim(job, job.blocks[i].id);
  job.sequence.reset();
  if (job.compression != nullptr) {
    job.compression->recall.reset();
    job.compression->document.reset();
    job.compression->whole.clear();
    job.compression->found.clear();
  }
  reserved_tiles_ -= job.held_tiles;
  job.held_tiles = 0;
}

// The block that follows may be found, or left to another request that is computing it.
bool Engine::MayFind(Job& job) const {
  if (!job.at_shared_border()) return false;
  const Job::Block& block = job.blocks[job.next_block];
  if (block.first + block.rows > FindableEnd(job)) return false;
  // Groups of a span are sealed at its end: until then nothing is found behind them.
  const bool sealed =
      !SealsLate(job) || block.first < job.compression->fixed || job.sequence->open_groups().empty();
  return sealed && !Declines(job);
}

// Are its spans' blocks needed at rest before they may go below?
bool Engine::SealsLate(const Job& job) {
  const Compression* const c = job.compression.get();
  return c != nullptr && c->takes_rest() && !c->span_decided;
}

// At a border before a shared block: takes the longest run of them that some tier holds. The last token is
// always run if its logits are needed.
void Engine::FindCached(Job& job) {
  const int64_t before = job.cached, late = mover_->stats().late;
  Compression* const c = job.compression.get();
  while (MayFind(job) && store_->Holds(job.blocks[job.next_block].id)) {
    Job::Block& block = job.blocks[job.next_block];
    const TimePoint start = options_.clock->Now();
    PrefetchBlocks(job);
    std::optional<TieredStore::Rest> rest;
    const bool picked = c != nullptr && c->takes_rest() && block.first >= c->fixed;
    if (picked && store_->OnDevice(block.id)) {  // what is picked of it is taken at rest
      rest = store_->ReadRest(block.id, block.rows);
      if (!rest.has_value()) break;
    }
    const Level level = LevelOf(block.id);  // before it is brought: from SSD it comes by way of host memory
    std::optional<TieredStore::Found> found = store_->Find(block.id, block.position, /*base=*/0, block.rows);
    if (!found.has_value() || found->source != TieredStore::Source::kDevice) {
      const bool from_ssd =
          found.has_value() ? found->source == TieredStore::Source::kSsd : level == Level::kSsd;
      load_prices_.Observe(from_ssd ? Level::kSsd : Level::kHost, block.rows, Since(start),
                           options_.clock->Now());
    }
    if (!found.has_value()) break;
    if (found->rest.has_value()) rest = std::move(found->rest);
    const bool kept = c != nullptr && c->mode == PrefillMode::kExact && c->view_key.has_value();
    if (kept && !picked && rest.has_value() && block.first < c->context_end)  // for its view
      c->found.push_back({{block.first, block.rows, rest->data}, rest->owner});
    if (picked) {
      PALIMPSEST_CHECK(rest.has_value(), "a block of a span was found without its form at rest");
      c->found.push_back({{block.first, block.rows, rest->data}, rest->owner});
    }
    if (found->source != TieredStore::Source::kDevice) job.load_seconds += Since(start);
    Unclaim(job, block.id);
    job.sequence->AddPinned(std::move(found->pin));
    if (block.origin == Job::Block::Origin::kNone) {
      block.origin = Job::Block::Origin::kCached;
      job.cached += block.rows;
      job.found[static_cast<size_t>(found->source)] += block.rows;
    }
    job.prefilled += block.rows;
    if (c != nullptr) c->run = job.prefilled;
    job.next_seal = ++job.next_block;
  }
  // All sessions wait for a deadline: one is what a request may cost them (F9), then it computes the rest.
  if (mover_->stats().late > late) job.declines = true;
  if (job.cached == before) return;
  stats_.cached_tokens += job.cached - before;
  if (job.request.on_found) job.request.on_found(job.cached);
  TellPrefill(job);
}

void Engine::SealFull(Job& job) {
  while (job.next_seal < job.blocks.size() && job.blocks[job.next_seal].shared) {
    Job::Block& block = job.blocks[job.next_seal];
    if (SealsLate(job) && block.first >= job.compression->fixed) return;
    if (!job.sequence->SealOldest(block.id)) return;
    ++job.next_seal;
    Unclaim(job, block.id);
    if (block.origin == Job::Block::Origin::kNone) block.origin = Job::Block::Origin::kComputed;
  }
}

// The other request that is computing what this one needs next; null: nobody, and it is this one's now.
Engine::Job* Engine::ComputedBy(Job& job) {
  if (!MayFind(job)) return nullptr;
  const auto [claim, is_new] = computing_.try_emplace(job.blocks[job.next_block].id, &job);
  return claim->second == &job ? nullptr : claim->second;
}

// May it go on with its next block in this step?
bool Engine::MayCompute(Job& job) {
  if (!MayFind(job)) return true;
  return !store_->Holds(job.blocks[job.next_block].id) && ComputedBy(job) == nullptr;
}

void Engine::Unclaim(const Job& job, const BlockId& id) {
  const auto claim = computing_.find(id);
  if (claim != computing_.end() && claim->second == &job) computing_.erase(claim);
}

}  // namespace palimpsest
