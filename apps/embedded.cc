#include "apps/embedded.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "apps/input_files.h"
#include "proto/base/clock.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "storage/tile_arena.h"

namespace palimpsest {
namespace {

constexpr std::string_view kIdStart = "doc-";
// Below this, a bar would flash by.
constexpr int64_t kProgressTokensMin = 1024;

// What the coordinator planned, as the worker takes it: to be prefilled.
Request RequestOf(PromptPlan plan) {
  Request request;
  request.sampling = GreedySampling(/*max_tokens=*/0);
  for (PromptSegment& segment : plan.segments) {
    request.segments.push_back(
        {.tokens = std::move(segment.tokens), .shared = segment.shared(), .known = segment.known});
  }
  return request;
}

int64_t CountTokens(const Request& request) {
  int64_t tokens = 0;
  for (const Segment& segment : request.segments) tokens += static_cast<int64_t>(segment.tokens.size());
  return tokens;
}

bool IsFile(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Embedded>> Embedded::Open(const Config& config, Options options) {
  std::unique_ptr<Embedded> embedded(new Embedded(config, std::move(options)));
  PALIMPSEST_ASSIGN_OR_RETURN(embedded->model_, Model::Open(config));
  PALIMPSEST_ASSIGN_OR_RETURN(embedded->planner_, embedded->model_->MakePlanner());
  return embedded;
}

absl::StatusOr<Catalog*> Embedded::OpenCatalog() {
  if (catalog_ == nullptr) {
    PALIMPSEST_ASSIGN_OR_RETURN(catalog_, Catalog::Open(config_.data_dir));
  }
  return catalog_.get();
}

// Runs one request to its end, with progress while its prompt is read.
absl::StatusOr<Outcome> Embedded::Run(Request request, std::string_view label) {
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model_->StartEngine());
  PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
  const int64_t total = CountTokens(request);
  std::optional<Progress> progress;
  if (total >= kProgressTokensMin) progress.emplace(label, "tokens", total, options_.progress);
  request.cancel = options_.cancel;
  request.on_prefill = [&progress](int64_t done, int64_t all) {
    if (!progress.has_value()) return;
    progress->Add(done - progress->done());
    if (done == all) progress->Done();
  };
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine->Run(std::move(request)));
  PALIMPSEST_RETURN_IF_ERROR(outcome.status);
  return outcome;
}

// The text in the catalog, whether it is new or not; refused before it is stored if it is too long to be
// read.
absl::StatusOr<Embedded::Found> Embedded::AddText(const std::string& path, const std::string& text) {
  PALIMPSEST_ASSIGN_OR_RETURN(Catalog* const catalog, OpenCatalog());
  Found found;
  found.document.name = path;
  PALIMPSEST_ASSIGN_OR_RETURN(found.document.tokens, planner_->TokenizeDocument(path, text));
  PALIMPSEST_RETURN_IF_ERROR(planner_->CheckDocument(found.document));
  PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
  PALIMPSEST_ASSIGN_OR_RETURN(Catalog::Added added,
                              catalog->Add(path, text, model_->tokenizer()->hash(), found.document.tokens));
  found.document.known = added.already_known;
  found.info = std::move(added.info);
  return found;
}

absl::StatusOr<Embedded::Found> Embedded::FindById(const std::string& id) {
  PALIMPSEST_ASSIGN_OR_RETURN(Catalog* const catalog, OpenCatalog());
  const std::string& tokenizer_hash = model_->tokenizer()->hash();
  PALIMPSEST_ASSIGN_OR_RETURN(Document document, catalog->Get(id, tokenizer_hash));
  if (document.token_ids.empty()) {  // ingested for a model with another tokenizer
    PALIMPSEST_ASSIGN_OR_RETURN(document.token_ids, planner_->TokenizeDocument(id, document.text));
    PALIMPSEST_RETURN_IF_ERROR(catalog->PutTokenIds(document.info.id, tokenizer_hash, document.token_ids));
  }
  return Found{.info = document.info,
               .document = {.name = id, .tokens = std::move(document.token_ids), .known = true}};
}

// An id begins with "doc-"; a file of such a name can be given as ./doc-x.
absl::StatusOr<Embedded::Found> Embedded::FindDocument(const std::string& name) {
  if (name.starts_with(kIdStart)) return FindById(name);
  if (name != kStdin && !IsFile(name)) {
    return NotFound(
        "document {} is neither a file nor an id (doc-...); `palimpsest documents list` shows all",
        Quoted(name, 4096));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text,
                              ReadInput(name, config_.limits.document_bytes, *options_.cancel));
  return AddText(name, text);
}

absl::StatusOr<IngestedDocument> Embedded::Ingest(const std::string& path, const std::string& text) {
  PALIMPSEST_RETURN_IF_ERROR(model_->StartEngine().status());  // loading is not the document's time
  const TimePoint start = RealClock().Now();
  PALIMPSEST_ASSIGN_OR_RETURN(Found found, AddText(path, text));
  IngestedDocument ingested{
      .info = std::move(found.info), .path = path, .already_known = found.document.known};
  const int64_t layers = model_->config().layers;
  ingested.blocks = (ingested.info.tokens + kTileSlots - 1) / kTileSlots * layers;
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlan plan, planner_->PlanDocument(std::move(found.document)));
  const std::string label =
      fmt::format("ingest {}", OneLine(std::filesystem::path(path).filename().string(), 128));
  PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome, Run(RequestOf(std::move(plan)), label));
  ingested.host_bytes = outcome.receipt.spilled_bytes().host();
  ingested.seconds = Seconds(RealClock().Now() - start);
  return ingested;
}

absl::StatusOr<Answer> Embedded::Ask(const Question& question) {
  Answer answer;
  std::vector<PromptDocument> documents;
  for (const std::string& name : question.documents) {
    PALIMPSEST_ASSIGN_OR_RETURN(Found found, FindDocument(name));
    answer.documents.push_back(found.info.id);
    documents.push_back(std::move(found.document));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlan plan,
                              planner_->PlanQuestion(std::move(documents), question.text, question.prefill));
  const std::string prefill = plan.prefill, reason = plan.prefill_reason;
  Request request = RequestOf(std::move(plan));
  request.sampling = question.sampling;
  if (question.on_text) {
    request.on_text = [&question](std::string_view text, int32_t) { question.on_text(text); };
  }
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, Run(std::move(request), "prefill"));
  answer.text = std::move(outcome.text);
  answer.finish_reason = std::move(outcome.finish_reason);
  answer.usage = std::move(outcome.usage);
  answer.receipt = std::move(outcome.receipt);
  answer.receipt.set_prefill(prefill);
  answer.receipt.set_prefill_reason(reason);
  answer.receipt.set_question(question.visible ? "visible" : "hidden");
  return answer;
}

}  // namespace palimpsest
