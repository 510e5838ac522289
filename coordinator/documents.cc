#include "coordinator/documents.h"

#include <algorithm>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr Duration kLook = std::chrono::milliseconds(50);  // for cancellation, while waiting
constexpr Duration kLetGo = std::chrono::seconds(10);      // for a read to stop before a delete
constexpr int64_t kQueueFullSeconds = 30, kStoppingSeconds = 5;
constexpr size_t kNameBytesMax = 4096;

using Phase = DocumentState::Phase;

bool Differs(const DocumentState& a, const DocumentState& b) {
  return a.phase != b.phase || a.done_tokens != b.done_tokens || a.error != b.error;
}

bool UnderWay(const DocumentState& state) {
  return state.phase == Phase::kWaiting || state.phase == Phase::kReading;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Catalog>> Documents::OpenCatalog(const std::string& tenant) {
  const std::lock_guard<std::mutex> lock(catalog_mu_);
  if (catalog_ == nullptr) {
    PALIMPSEST_ASSIGN_OR_RETURN(catalog_, options_.open_catalog());
  }
  return tenant.empty() ? catalog_ : catalog_->OfTenant(tenant);
}

absl::StatusOr<DocumentState> Documents::Add(const std::string& name, const std::string& text,
                                             const std::string& tenant, Coordinator::Ingest ingest) {
  if (static_cast<int64_t>(text.size()) > options_.document_bytes) {
    return InvalidArgument("document {} has {} bytes, limits.document_bytes allows {}; split it",
                           Quoted(name, 1024), text.size(), options_.document_bytes);
  }
  if (name.size() > kNameBytesMax) {
    return InvalidArgument("a document's name of {} bytes: at most {}", name.size(), kNameBytesMax);
  }
  const PromptPlanner& planner = *options_.planner;
  PromptDocument document{.name = name, .tokens = {}};
  PALIMPSEST_ASSIGN_OR_RETURN(document.tokens, planner.TokenizeDocument(name, text));
  PALIMPSEST_ASSIGN_OR_RETURN(const PromptPlan plan, planner.PlanDocument(document));
  PALIMPSEST_RETURN_IF_ERROR(options_.check_fits(plan));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  PALIMPSEST_ASSIGN_OR_RETURN(const Catalog::Added added,
                              catalog->Add(name, text, options_.tokenizer_hash, document.tokens));
  return Enqueue({tenant, added.info.id}, added, ingest);
}

absl::StatusOr<DocumentState> Documents::Enqueue(const Key& key, const Catalog::Added& added,
                                                 Coordinator::Ingest when) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto known = entries_.find(key);
  const bool under_way = known != entries_.end() && UnderWay(known->second.state);
  const bool read =
      known != entries_.end() && known->second.state.phase == Phase::kReady && !known->second.unread;
  const bool ingest = when == Coordinator::Ingest::kAlways || (when == Coordinator::Ingest::kIfNew && !read);
  if (under_way || !ingest) {
    if (!added.already_known && known == entries_.end()) {
      entries_[key].unread = true;
      Remember(key);
    }
    DocumentState state = StateOf(key, added.info);
    state.already_known = added.already_known;
    return state;
  }
  if (stopping_) return Error(absl::StatusCode::kUnavailable, "the coordinator is being stopped");
  if (waiting_.size() >= kWaitingMax) {
    return WithRetryAfter(Error(absl::StatusCode::kUnavailable,
                                "document {} is stored; {} documents wait to be ingested, which is the "
                                "limit: add it again in {} s",
                                key.second, waiting_.size(), kQueueFullSeconds),
                          kQueueFullSeconds);
  }
  Entry& entry = entries_[key];
  entry.unread = entry.unread || !added.already_known;
  entry.added = options_.clock->Now();
  entry.state = {.phase = Phase::kWaiting,
                 .info = added.info,
                 .total_tokens = added.info.tokens,
                 .already_known = added.already_known};
  waiting_.push_back(key);
  StartThread();
  work_.notify_one();
  return entry.state;
}

// REQUIRES: mu_. What is not in the table is ready.
DocumentState Documents::StateOf(const Key& key, DocumentInfo info) const {
  DocumentState state;
  if (const auto entry = entries_.find(key); entry != entries_.end()) state = entry->second.state;
  state.info = std::move(info);
  if (state.phase == Phase::kReady) state.done_tokens = state.total_tokens = state.info.tokens;
  return state;
}

absl::StatusOr<DocumentState> Documents::Get(const std::string& id, const std::string& tenant) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  PALIMPSEST_ASSIGN_OR_RETURN(DocumentInfo info, catalog->Find(id));
  const Key key{tenant, info.id};
  const std::lock_guard<std::mutex> lock(mu_);
  return StateOf(key, std::move(info));
}

absl::StatusOr<DocumentState> Documents::Wait(const std::string& id, const std::string& tenant,
                                              const DocumentState& seen, Duration limit,
                                              const CancelToken& cancel) {
  const TimePoint end = AddSaturated(std::chrono::steady_clock::now(), limit);
  PALIMPSEST_ASSIGN_OR_RETURN(DocumentState state, Get(id, tenant));
  const Key key{tenant, state.info.id};
  while (UnderWay(state) && !Differs(state, seen)) {
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    const TimePoint now = std::chrono::steady_clock::now();
    if (now >= end) break;
    std::unique_lock<std::mutex> lock(mu_);
    if (stopping_) {  // nobody reads it any more
      return WithRetryAfter(Error(absl::StatusCode::kUnavailable,
                                  "the server is being stopped; document {} is stored and is read when it is "
                                  "asked about",
                                  key.second),
                            kStoppingSeconds);
    }
    changed_.wait_for(lock, std::min<Duration>(kLook, end - now));
    if (entries_.count(key) == 0) {  // deleted, or forgotten as one that was done long ago
      lock.unlock();
      return Get(state.info.id, tenant);
    }
    state = StateOf(key, std::move(state.info));
  }
  return state;
}

absl::StatusOr<std::string> Documents::Text(const std::string& id, const std::string& tenant) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  PALIMPSEST_ASSIGN_OR_RETURN(Document document, catalog->Get(id, options_.tokenizer_hash));
  return std::move(document.text);
}

absl::StatusOr<std::vector<DocumentState>> Documents::List(const std::string& tenant) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<DocumentInfo> infos, catalog->List());
  std::vector<DocumentState> states;
  const std::lock_guard<std::mutex> lock(mu_);
  for (DocumentInfo& info : infos) {
    const Key key{tenant, info.id};
    states.push_back(StateOf(key, std::move(info)));
  }
  return states;
}

absl::Status Documents::Delete(const std::string& id, const std::string& tenant) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  const absl::StatusOr<DocumentInfo> info = catalog->Find(id);
  if (!info.ok() && info.status().code() != absl::StatusCode::kDataLoss) return info.status();
  if (info.ok()) {
    const Key key{tenant, info->id};
    std::unique_lock<std::mutex> lock(mu_);
    waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), key), waiting_.end());
    if (const auto entry = entries_.find(key); entry != entries_.end() && entry->second.busy) {
      entry->second.cancel->Set();
    }
    const auto idle = [&] {
      const auto entry = entries_.find(key);
      return entry == entries_.end() || !entry->second.busy;
    };
    if (!changed_.wait_for(lock, kLetGo, idle)) {
      return WithRetryAfter(Error(absl::StatusCode::kUnavailable,
                                  "document {} is being ingested and did not stop within {:.0f} s; try again",
                                  info->id, Seconds(kLetGo)),
                            5);
    }
    // Once more: deleted by another call and added again meanwhile, it may wait in the queue.
    waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), key), waiting_.end());
    entries_.erase(key);
  }
  changed_.notify_all();
  return catalog->Delete(info.ok() ? info->id : id);  // by its id if it is damaged
}

absl::StatusOr<Documents::Found> Documents::Find(const std::string& id, const std::string& tenant) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Catalog> catalog, OpenCatalog(tenant));
  PALIMPSEST_ASSIGN_OR_RETURN(DocumentTokens tokens, catalog->GetTokenIds(id, options_.tokenizer_hash));
  if (tokens.ids.empty()) {  // added for a model with another tokenizer
    PALIMPSEST_ASSIGN_OR_RETURN(const Document document, catalog->Get(id, options_.tokenizer_hash));
    PALIMPSEST_ASSIGN_OR_RETURN(tokens.ids, options_.planner->TokenizeDocument(id, document.text));
    // Kept for the next time; a full disk does not spoil this question.
    const absl::Status kept = catalog->PutTokenIds(tokens.info.id, options_.tokenizer_hash, tokens.ids);
    if (!kept.ok()) {
      PALIMPSEST_LOG(kWarn, "token ids not kept document {} status {}", LogName(tokens.info.id), kept);
    }
  }
  Found found{.id = tokens.info.id, .document = {.name = id, .tokens = std::move(tokens.ids), .known = true}};
  const std::lock_guard<std::mutex> lock(mu_);
  if (const auto entry = entries_.find({tenant, found.id}); entry != entries_.end()) {
    found.document.known = !entry->second.unread;
  }
  return found;
}

void Documents::Read(const std::vector<DocumentId>& ids, const std::string& tenant) {
  const std::lock_guard<std::mutex> lock(mu_);
  for (const DocumentId& id : ids) {
    if (const auto entry = entries_.find({tenant, id}); entry != entries_.end()) entry->second.unread = false;
  }
}

int64_t Documents::ingesting() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return static_cast<int64_t>(waiting_.size()) + busy_;
}

}  // namespace palimpsest
