// The tiers below the device as requests see them: opened, read ahead, waited for, told about.
#include <algorithm>
#include <array>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/status.h"
#include "storage/tier/host_tier.h"
#include "storage/tier/late_tier.h"
#include "storage/tier/rocksdb_tier.h"
#include "worker/compression/view_format.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

// For so many batches the SSD tier has room at least: one larger than the tier is never stored, and what
// makes room goes as a whole.
constexpr int64_t kBatchesMin = 4;
constexpr auto kStoredWait = std::chrono::seconds(60);  // most that an ingest waits for its last writes

// Each worker of a machine has a tier of its own: the first that no other has.
absl::StatusOr<std::unique_ptr<Tier>> OpenFreeTier(const EngineOptions::Ssd& ssd) {
  constexpr int kWorkersMax = 64;
  absl::Status taken;
  for (int i = 0; i < kWorkersMax; ++i) {
    const std::string folder = fmt::format("{}/{}", ssd.folder, i);
    RocksDbTierReport report;
    absl::StatusOr<std::unique_ptr<Tier>> tier =
        OpenRocksDbTier({.folder = folder, .capacity_bytes = ssd.bytes, .lock_wait = {}}, &report);
    if (tier.ok()) {
      PALIMPSEST_LOG(kDebug, "ssd tier folder {} values {} bytes {} seconds {:.2f}", LogName(folder),
                     report.values, report.bytes, report.seconds);
      if (!report.quarantined.empty()) {
        PALIMPSEST_LOG(kWarn, "ssd tier was damaged and starts empty; what was there is in {}",
                       LogName(report.quarantined));
      }
      return tier;
    }
    taken = tier.status();
    if (taken.code() != absl::StatusCode::kAborted) return taken;  // but in use by another process
  }
  return taken;
}

bool CanComeLater(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsUnavailable(status) || absl::IsPermissionDenied(status);
}

}  // namespace

// A disk that is full or gone keeps nobody from asking: until it is there nothing outlives the process, and
// it is told.
absl::StatusOr<std::unique_ptr<Tier>> Engine::OpenSsd() {
  absl::StatusOr<std::unique_ptr<Tier>> opened = OpenFreeTier(options_.ssd);
  if (!CanComeLater(opened.status())) return opened;
  PALIMPSEST_LOG(kWarn, "without the ssd tier for now: {}", opened.status());
  auto late =
      std::make_unique<LateTier>(LateTier::Options{.name = "ssd",
                                                   .why = opened.status(),
                                                   .open = [ssd = options_.ssd] { return OpenFreeTier(ssd); },
                                                   .clock = options_.clock});
  late_ssd_ = late.get();
  return late;
}

absl::Status Engine::OpenTiers() {
  std::unique_ptr<Tier> host, ssd;
  std::shared_ptr<DataKey> key;
  if (options_.host_bytes > 0) {
    // Each tile has a checksum of its own in its envelope, which every reader opens.
    host = MakeHostTier({.capacity_bytes = options_.host_bytes, .verify_reads = false});
    if (options_.wrap_host) host = options_.wrap_host(std::move(host));
  }
  if (!options_.ssd.folder.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(ssd, OpenSsd());
    if (!options_.ssd.key_file.empty()) {
      absl::StatusOr<std::shared_ptr<DataKey>> loaded =
          DataKey::Load(options_.ssd.key_file, options_.ssd.folder + "/data.key");
      if (late_ssd_ != nullptr && CanComeLater(loaded.status())) {
        // Of a disk that is full or gone already: blocks would have other names with a key that came later.
        PALIMPSEST_LOG(kWarn, "without the ssd tier until the next start: {}", loaded.status());
        no_ssd_ = Message(loaded.status());
        late_ssd_ = nullptr;
        ssd = nullptr;
      } else {
        PALIMPSEST_ASSIGN_OR_RETURN(key, std::move(loaded));
        id_key_ = key->Derive("block ids");
      }
    }
    if (ssd != nullptr && options_.wrap_ssd) ssd = options_.wrap_ssd(std::move(ssd));
  }
  MoverOptions mover = options_.mover;
  mover.readers = options_.ssd.readers;
  if (ssd != nullptr) mover.batch_bytes = std::min(mover.batch_bytes, options_.ssd.bytes / kBatchesMin);
  mover.host_format = options_.host_format;
  mover.ssd_format = options_.ssd.format;
  mover_ = std::make_unique<Mover>(mover, std::move(host), std::move(ssd), std::move(key));
  return absl::OkStatus();
}

// The blocks after the next one, while that one is brought in: an SSD answers many at once as fast as one. Of
// a text whose view is there nothing will be asked for but what stands before it.
void Engine::PrefetchBlocks(Job& job) {
  if (!mover_->has_ssd()) return;
  const size_t ahead = mover_->ReadAhead(store_->shape().group_bytes(kTileSlots));
  const size_t end = std::min(job.blocks.size(), job.next_block + ahead);
  if (job.prefetched > job.next_block && job.prefetched + ahead / 2 > end && end < job.blocks.size()) return;
  std::vector<BlockId> ids;
  const bool viewed = job.compression != nullptr && job.compression->view != nullptr;
  for (job.prefetched = std::max(job.prefetched, job.next_block); job.prefetched < end; ++job.prefetched) {
    const Job::Block& block = job.blocks[job.prefetched];
    if (!block.shared || (viewed && block.first + block.rows > FindableEnd(job))) break;
    ids.push_back(block.id);
  }
  if (!ids.empty()) store_->Prefetch(ids);
}

// Of a token; 0: not known yet.
double Engine::ComputeSeconds() const {
  const double rate = stats_.prefill_tokens_per_second;
  return rate > 0 ? 1 / rate : 0;
}

// Of what is below: where it would come from.
Level Engine::LevelOf(const BlockId& id) const {
  return mover_->host() != nullptr && mover_->host()->Contains(id) ? Level::kHost : Level::kSsd;
}

// Would bringing what follows cost clearly more than computing it? Then this request computes what is not on
// the device: a slow tier must not make it slower. Small losses are no reason, since prices are of other
// blocks and of other load. A read that was late is one (see FindCached).
bool Engine::Declines(Job& job) const {
  constexpr double kFactor = 2, kLossSeconds = 0.25;
  const Job::Block& block = job.blocks[job.next_block];
  const Compression* const c = job.compression.get();
  const bool picked =
      c != nullptr && c->takes_rest() && block.first >= c->fixed;  // is read below all the same
  if (store_->OnDevice(block.id) && !(job.declines && picked)) return false;
  if (job.declines) return true;
  const double load = load_prices_.Of(LevelOf(block.id), options_.clock->Now());
  const double compute = ComputeSeconds();
  const double loss = (load - compute) * static_cast<double>(job.length() - block.first);
  job.declines = compute > 0 && load > kFactor * compute && loss > kLossSeconds && store_->Holds(block.id);
  return job.declines;
}

// What a policy left of a context or said of it, from memory or from the tiers; null: it is nowhere.
std::shared_ptr<const View> Engine::FindView(const Hash256& key, TieredStore::Source* source) {
  *source = TieredStore::Source::kHost;
  if (std::shared_ptr<const View> view = views_.Find(key)) return view;
  const TierKey picks(BlockId{key}, ValueKind::kPicks);
  std::shared_ptr<const View> view;
  const auto opens = [&](std::span<const uint8_t> value) {
    const absl::StatusOr<OpenedTile> opened = OpenTile(picks.id, kPicksGeometry, value, nullptr, nullptr);
    absl::StatusOr<View> read = opened.ok() ? ParseView(store_->shape(), opened->payload) : opened.status();
    if (!read.ok()) {
      PALIMPSEST_LOG(kWarn, "what a policy kept is not used: {}", read.status());
      return false;
    }
    view = std::make_shared<const View>(*std::move(read));
    return true;
  };
  const std::optional<Mover::Found> found = mover_->GetIntact(picks, opens);
  if (!found.has_value()) return nullptr;
  if (found->level == Level::kSsd) *source = TieredStore::Source::kSsd;
  views_.Put(key, view);
  return view;
}

void Engine::KeepView(const Hash256& key, const std::shared_ptr<const View>& view) {
  views_.Put(key, view);
  const TierKey picks(BlockId{key}, ValueKind::kPicks);
  if (!mover_->has_ssd() || mover_->OnSsd(picks)) return;
  std::vector<uint8_t> value(kEnvelopeHeaderBytes);
  AppendView(*view, config_.head_size, &value);
  // Of a large model a view may be larger than what a tier takes: then the next start computes it again.
  const int64_t most = std::min<int64_t>(kEnvelopeMaxPayloadBytes, options_.mover.waiting_bytes_max);
  if (std::ssize(value) > most) {
    PALIMPSEST_LOG(kWarn, "what a policy kept has {} bytes and is not written: a value has at most {}",
                   value.size(), most);
    return;
  }
  SealTile(picks.id, kPicksGeometry, value, nullptr);
  mover_->Put(picks, std::move(value), 1);
}

// An ingest is done when what it computed is safe: after that a crash loses nothing of it.
void Engine::StoreBelow(Job& job) {
  mover_->Commit();
  if (!mover_->has_ssd() || job.request.sampling.max_tokens() != 0 || mover_->Flush(Duration::zero())) {
    return Finish(job, absl::OkStatus(), job.request.sampling.max_tokens() == 0 ? "stop" : "length");
  }
  job.stored_by = AddSaturated(options_.clock->Now(), kStoredWait);
  job.state = Job::State::kStoring;
}

// Ends those whose blocks are on SSD now, or after `wait`; true if somebody waits or waited.
bool Engine::FinishStored(Duration wait) {
  bool any = false;
  for (auto& job : jobs_) {
    if (job->state != Job::State::kStoring) continue;
    any = true;
    const bool stored = mover_->Flush(std::exchange(wait, Duration::zero()));
    if (!stored && options_.clock->Now() < job->stored_by) continue;
    if (!stored) job->outcome.receipt.add_degraded("blocks were still on their way to the ssd tier");
    Finish(*job, absl::OkStatus(), "stop");
  }
  return any;
}

// From the last to the first: of a document the tail is the first to go.
void Engine::TouchBlocks(const Job& job) {
  std::vector<TierKey> keys;
  for (auto block = job.blocks.rbegin(); block != job.blocks.rend(); ++block) {
    if (!block->shared) continue;
    keys.emplace_back(block->id, ValueKind::kIndex);
    keys.emplace_back(block->id, ValueKind::kBlock);
  }
  mover_->Touch(keys);
}

// What was put below since `before` is the request's.
void Engine::CountSpilled(Job& job, const MoverStats& before) {
  const MoverStats now = mover_->stats();
  for (size_t level = 0; level < job.spilled_bytes.size(); ++level)
    job.spilled_bytes[level] += now.level[level].put_bytes - before.level[level].put_bytes;
}

// What the request has to tell about the tiers. What failed while it ran is told even if another one was hit
// by it: better once too often.
void Engine::DescribeTiers(Job& job) {
  proto::Receipt& receipt = job.outcome.receipt;
  proto::Receipt::CachedTokens& cached = *receipt.mutable_cached_tokens();
  cached.set_device(job.found[static_cast<size_t>(TieredStore::Source::kDevice)]);
  cached.set_host(job.found[static_cast<size_t>(TieredStore::Source::kHost)]);
  cached.set_ssd(job.found[static_cast<size_t>(TieredStore::Source::kSsd)]);
  receipt.mutable_spilled_bytes()->set_host(job.spilled_bytes[static_cast<size_t>(Level::kHost)]);
  receipt.mutable_spilled_bytes()->set_ssd(job.spilled_bytes[static_cast<size_t>(Level::kSsd)]);
  receipt.set_host_format(mover_->host() != nullptr ? std::string(BlockFormatName(options_.host_format))
                                                    : "");
  receipt.set_ssd_format(mover_->has_ssd() ? std::string(BlockFormatName(options_.ssd.format)) : "");
  receipt.set_encryption(!mover_->has_ssd() ? "" : mover_->encrypted() ? "aes-256-gcm" : "off");
  if (job.lost_blocks > 0) {
    receipt.add_degraded(fmt::format(
        "{} blocks of {} tokens or less were dropped without a copy below; raise host.store_bytes "
        "or ssd.store_bytes",
        job.lost_blocks, kTileSlots));
  }
  const TimePoint at = options_.clock->Now();
  receipt.mutable_load_price()->set_host_seconds(load_prices_.Of(Level::kHost, at));
  receipt.mutable_load_price()->set_ssd_seconds(load_prices_.Of(Level::kSsd, at));
  receipt.mutable_load_price()->set_compute_seconds(ComputeSeconds());
  receipt.mutable_load_price()->set_declined_tokens(job.declined);
  if (!no_ssd_.empty()) receipt.add_degraded("without the ssd tier until the next start: " + no_ssd_);
  if (late_ssd_ != nullptr) {
    if (const auto why = late_ssd_->WhyNot(); why.has_value())
      receipt.add_degraded("without the ssd tier for now: " + Message(*why));
  }
  if (!job.was_admitted) return;
  const MoverStats now = mover_->stats(), &before = job.tiers_before;
  const auto tell = [&](int64_t count, const char* what) {
    if (count > 0) receipt.add_degraded(fmt::format("{} {}", count, what));
  };
  tell(now.damaged - before.damaged,
       "copies of blocks failed their checks; another tier's were taken, or the blocks were computed again");
  tell(now.late - before.late, "reads from the ssd tier were late");
  tell(now.dropped_full - before.dropped_full + now.dropped_refused - before.dropped_refused,
       "blocks were not written to the ssd tier, which did not take them");
  if (now.disk_off) receipt.add_degraded("the ssd tier failed and is left alone for a while");
}

}  // namespace palimpsest
