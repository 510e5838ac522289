// Recall while a request runs: whether it can be, when it begins, who looks for slices, what is told.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"
#include "worker/recall/shared_words.h"

namespace palimpsest {

// What was dropped is found again in blocks that stand where they were read: those of a pot do not, and those
// that a window slides over have moved.
absl::Status Engine::PlanRecall(const Request& request, Compression& c) const {
  if (request.recall.kind == RecallSpec::Kind::kAuto)
    return InvalidArgument("recall auto must be resolved before it comes here");
  if (!request.recall.on() || c.policy == nullptr) return absl::OkStatus();  // nothing is dropped
  if (c.pot()) {
    return InvalidArgument(
        "recall with a pot: positions of what a pot drops are gone; use prefill anchored, or recall none");
  }
  if (c.policy->sliding().has_value()) {
    return InvalidArgument("recall with policy {}, whose window slides: use another policy, or recall none",
                           c.spec.name());
  }
  if (c.residual() > 0) {
    return InvalidArgument("recall with policy {} and kv=kivi2: use kv=bf16, or recall none", c.spec.name());
  }
  if (c.merges()) {
    return InvalidArgument(
        "recall with policy {}, whose tokens hold what was merged into them: it would be seen twice; use "
        "merge=none, or recall none",
        c.spec.name());
  }
  if (!c.has_question) {
    if (request.question_visible) {
      return InvalidArgument(
          "recall with a question that the policy sees: ask with it hidden, or recall none");
    }
    return absl::OkStatus();  // an ingest
  }
  if (request.audit.has_value() && request.recall.kind != RecallSpec::Kind::kAll) {
    return InvalidArgument("an audit of attention is beside recall all, and this request has recall {}",
                           RecallText(request.recall));
  }
  c.recall_tokens = request.recall.BudgetOf(c.context_end - c.fixed);
  // Where choices are measured they are made: not of a perfect one, and of `all` there is nothing to see in
  // parts.
  c.asks_whole = request.recall.kind == RecallSpec::Kind::kSlices && c.recall_tokens > 0 && !request.oracle &&
                 !c.anchored() && c.context_end <= request.recall.whole;
  // Short of the budget, room for whole splits: the question's bits are those of the whole document.
  constexpr int64_t kSplitTokens = kSplitTiles * kTileSlots;
  if (c.asks_whole)
    c.recall_tokens = std::min(request.recall.budget, DivideUp(c.context_end, kSplitTokens) * kSplitTokens);
  return absl::OkStatus();
}

// Something of the context is on no tier: then the context is read again, which computes it and keeps it,
// once for a request. Not where the tiers are too small for all of it: it would be gone again.
bool Engine::MustMend(Job& job) {
  const Compression& c = *job.compression;
  std::vector<BlockId> missing;  // below, where slices come from
  int64_t bytes = 0;
  for (const IndexedBlock& block : ContextBlocks(job, c.asks_whole ? 0 : c.fixed)) {
    if (!mover_->Contains(block.id)) missing.push_back(block.id);
    bytes += store_->shape().group_bytes(block.rows);
  }
  int64_t room = 0;
  for (Tier* const tier : {mover_->host(), mover_->ssd()}) {
    if (tier != nullptr) room = std::max(room, tier->Stats().capacity_bytes);
  }
  if (missing.empty() || bytes > room) return false;
  for (const BlockId& id : missing) store_->Forget(id);  // else it would be found there and not be kept below
  job.mended = true;
  return true;
}

// A slice that was wanted did not come, for the first time: the step does not count. The request begins anew,
// reads what is gone from its text, and goes on with the token it was at.
bool Engine::LacksSlices(Job& job) {
  if (!Recalls(job) || job.mended || RecalledOf(job).missing_slices == 0) return false;
  job.mended = true;
  return true;
}

RecallCounts Engine::RecalledOf(const Job& job) {
  RecallCounts counts = job.compression->recall->counts();
  if (job.compression->document != nullptr) counts.Add(job.compression->document->counts());
  return counts;
}

// Of the context, from token `first` on.
std::vector<IndexedBlock> Engine::ContextBlocks(const Job& job, int64_t first) {
  std::vector<IndexedBlock> blocks;
  for (const Job::Block& block : job.blocks) {
    if (block.first >= first && block.first < job.compression->context_end)
      blocks.push_back({block.id, block.first, block.rows, block.position});
  }
  return blocks;
}

// Of the context's blocks, as this recall ranks them.
std::shared_ptr<const DocumentIndex> Engine::IndexOf(const Job& job, const RecallSpec& recall) {
  std::vector<IndexedBlock> blocks = ContextBlocks(job, job.compression->fixed);
  const auto kind = static_cast<DigestKind>(recall.index);
  std::shared_ptr<const DocumentIndex> index = indices_.Find(kind, blocks);
  if (index == nullptr) {
    index = DocumentIndex::Load(*store_, kind, std::move(blocks));
    indices_.Put(index);
  }
  return index;
}

void Engine::BeginRecall(Job& job) {
  Compression& c = *job.compression;
  if (c.recall_tokens == 0) return;
  const TimePoint start = options_.clock->Now();
  RecallSetup setup{.spec = job.request.recall,
                    .config = &config_,
                    .backend = backend_.get(),
                    .rope = rope_.get(),
                    .store = store_.get(),
                    .clock = options_.clock,
                    .index = IndexOf(job, job.request.recall),
                    .residents = std::move(c.stayed),
                    .tiles = {},
                    .budgets_kept = options_.recall_budgets_kept,
                    .watched = job.request.watched,
                    .oracle = job.request.oracle};
  if (setup.spec.kind == RecallSpec::Kind::kSlices) {
    const auto prompt = std::span(job.tokens).first(static_cast<size_t>(job.prompt_tokens));
    setup.named = SlicesSharingWords(prompt, c.context_end, setup.index->blocks(), setup.index->counts(),
                                     setup.spec.slice, setup.spec.WordTokens() / setup.spec.slice);
  }
  int64_t next = job.sequence->next_position();
  if (c.anchored()) {
    for (const RestHead& head : c.view->heads) setup.residents.push_back(head.tokens);
    setup.first_position = next;
    next += c.recall_tokens;
    int64_t longest = 0;
    for (const Compression::Span& span : c.spans) longest = std::max(longest, span.end - span.first);
    setup.rank_position = c.fixed + longest;
  }
  const absl::Status placed =
      job.sequence->AppendTiles(DivideUp(c.recall_tokens, kTileSlots), next, &setup.tiles);
  PALIMPSEST_CHECK(placed.ok(), "an admitted request found no room: {}", Message(placed));
  const std::vector<std::vector<int32_t>> tiles = setup.tiles;
  RecallSetup audited;
  if (job.request.audit.has_value()) audited = setup;
  c.recall = std::make_unique<Recall>(std::move(setup));
  if (c.asks_whole) BeginWhole(job, tiles);
  if (job.request.audit.has_value()) BeginAudit(job, *job.request.audit, &audited);
  job.recall_seconds += Since(start);
}

// The question's rows see all that precedes them, through the same tiles that slices come to. Not where it is
// known that the tiers do not have all of it.
void Engine::BeginWhole(Job& job, const std::vector<std::vector<int32_t>>& tiles) {
  std::vector<IndexedBlock> blocks = ContextBlocks(job, 0);
  const auto is_below = [&](const IndexedBlock& block) { return mover_->Contains(block.id); };
  if (!std::all_of(blocks.begin(), blocks.end(), is_below)) return;
  WholeDocument::Setup setup{.config = &config_,
                             .backend = backend_.get(),
                             .rope = rope_.get(),
                             .store = store_.get(),
                             .clock = options_.clock,
                             .slice = job.request.recall.slice,
                             .blocks = std::move(blocks),
                             .tiles = tiles,
                             .behind = {},
                             .chooser = job.compression->recall.get()};
  for (int64_t head = 0; head < store_->shape().tiles(); ++head) {
    setup.behind.push_back(job.sequence->tiles(head / config_.kv_heads, head % config_.kv_heads).size());
  }
  job.compression->document = std::make_unique<WholeDocument>(std::move(setup));
}

// Beside a recall of everything, which is `c.recall`.
void Engine::BeginAudit(Job& job, const RecallSpec& spec, RecallSetup* audited) {
  Compression& c = *job.compression;
  AttentionAudit::Setup audit{.config = &config_,
                              .backend = backend_.get(),
                              .rope = rope_.get(),
                              .pool = arena_->pool(),
                              .sequence = job.sequence.get(),
                              .tiles = std::move(audited->tiles),
                              .everything = c.recall.get(),
                              .chooser = nullptr,
                              .refresh = spec.refresh};
  if (spec.on()) {
    audited->spec = spec;
    audited->index = IndexOf(job, spec);
    audited->budgets_kept = 0;  // it fetches nothing
    audit.chooser = std::make_unique<Recall>(std::move(*audited));
  }
  c.audit = std::make_unique<AttentionAudit>(std::move(audit));
}

// Its question must run in pieces that do not depend on what runs beside it: all of a piece's queries choose.
bool Engine::Recalls(const Job& job) {
  return job.compression != nullptr && job.compression->recall != nullptr;
}

// Who chooses before the row of `token` attends, or what a question's row sees; null: what is there stays.
LayerHook* Engine::HookAt(const Job& job, int64_t token) {
  if (!Recalls(job)) return nullptr;
  const int64_t of_answer = token - job.prompt_tokens;
  if (of_answer < 0 && job.compression->document != nullptr) return job.compression->document.get();
  const bool chooses = of_answer < 0 || of_answer % job.request.recall.refresh == 0;
  if (!chooses) return nullptr;
  if (job.compression->audit != nullptr) return job.compression->audit.get();
  return job.compression->recall.get();
}

void Engine::DescribeRecall(Job& job) {
  proto::Receipt& receipt = job.outcome.receipt;
  const bool on = job.compression != nullptr && job.compression->recall_tokens > 0;
  receipt.set_recall(RecallText(on ? job.request.recall : RecallSpec{}));
  if (!Recalls(job)) return;
  if (const auto& audit = job.compression->audit; audit != nullptr)
    job.outcome.audit = {.tokens = audit->rows(), .layers = audit->shares()};
  const RecallCounts counts = RecalledOf(job);
  const auto tell = [](const RecallCounts::OfTier& from, proto::Recalled* to) {
    to->set_slices(from.slices);
    to->set_bytes(from.bytes);
  };
  tell(counts.device, receipt.mutable_recalled()->mutable_device());
  tell(counts.host, receipt.mutable_recalled()->mutable_host());
  tell(counts.ssd, receipt.mutable_recalled()->mutable_ssd());
  receipt.mutable_seconds()->set_recall(job.recall_seconds + counts.seconds);
  if (counts.missing_slices > 0) {
    receipt.add_degraded(fmt::format(
        "{} slices were wanted and no tier gave them; the answer was made without", counts.missing_slices));
  }
  if (const int64_t missing = job.compression->recall->missing_tokens(); missing > 0) {
    receipt.add_degraded(
        fmt::format("{} tokens were dropped and are on no tier, so no question finds them; "
                    "raise host.store_bytes or ssd.store_bytes",
                    missing));
  }
}

}  // namespace palimpsest
