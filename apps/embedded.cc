#include "apps/embedded.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "apps/domain_secret.h"
#include "apps/in_process_worker.h"
#include "apps/input_files.h"
#include "apps/late_progress.h"
#include "proto/base/clock.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kIdStart = "doc-";
const std::string kTenant;  // this process serves one person
// Nothing expires in one process: its worker does not beat.
constexpr Duration kLease = std::chrono::hours(24 * 365);

bool IsFile(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Gathers one answer.
class Gather final : public AnswerSink {
 public:
  Gather(const Question& question, Answer& answer, ProgressOutput output)
      : question_(question), answer_(answer), progress_("prefill", std::move(output)) {}
  bool OnStart(int64_t, const std::vector<std::string>& documents) override {
    answer_.documents = documents;
    return true;
  }
  bool OnPrefill(int64_t done, int64_t total) override {
    progress_.Set(done, total);
    return true;
  }
  bool OnToken(int64_t, const proto::TokenEvent& token) override {
    Add(token.text());
    return true;
  }
  bool OnDone(int64_t, const proto::DoneEvent& done) override {
    Add(done.text());
    answer_.finish_reason = done.finish_reason();
    answer_.usage = done.usage();
    answer_.receipt = done.receipt();
    return true;
  }

 private:
  void Add(const std::string& text) {
    answer_.text += text;
    if (question_.on_text && !text.empty()) question_.on_text(text);
  }

  const Question& question_;
  Answer& answer_;
  LateProgress progress_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Embedded>> Embedded::Open(const Config& config, Options options) {
  std::unique_ptr<Embedded> embedded(new Embedded(config, std::move(options)));
  PALIMPSEST_ASSIGN_OR_RETURN(embedded->model_, Model::Open(config));
  PALIMPSEST_ASSIGN_OR_RETURN(ServedModel served, embedded->model_->Served());
  embedded->registry_ = std::make_shared<Registry>(
      Registry::Identity{.version = "", .cluster_id = "", .model_hash = served.hash, .lease = kLease},
      RealClock());
  Coordinator::Options parts;
  parts.config = config;
  parts.model = std::move(served);
  parts.open_catalog = [folder = config.data_dir] { return Catalog::Open(folder); };
  parts.registry = embedded->registry_;
  PALIMPSEST_ASSIGN_OR_RETURN(parts.secret, DomainSecret(config));
  PALIMPSEST_ASSIGN_OR_RETURN(embedded->coordinator_, Coordinator::Create(std::move(parts)));
  return embedded;
}

Embedded::~Embedded() {
  if (coordinator_ != nullptr) coordinator_->Stop();
  coordinator_.reset();
  worker_.reset();
}

absl::Status Embedded::Check() { return coordinator_->ListDocuments(kTenant).status(); }

absl::Status Embedded::StartWorker() {
  if (worker_ != nullptr) return absl::OkStatus();
  PALIMPSEST_ASSIGN_OR_RETURN(worker_, WorkerHost::Start([this] { return model_->MakeStoringEngine(); }, {}));
  return JoinInProcess(*worker_, *registry_);
}

// An id begins with "doc-"; a file of such a name can be given as ./doc-x.
absl::StatusOr<DocumentId> Embedded::FindDocument(const std::string& name) {
  if (name.starts_with(kIdStart)) return name;
  if (name != kStdin && !IsFile(name)) {
    return NotFound(
        "document {} is neither a file nor an id (doc-...); `palimpsest documents list` shows all",
        Quoted(name, 4096));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text,
                              ReadInput(name, config_.limits.document_bytes, *options_.cancel));
  PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
  // Not ingested by itself: of several documents each is read where it stands in the prompt.
  PALIMPSEST_ASSIGN_OR_RETURN(const DocumentState state,
                              coordinator_->AddDocument(name, text, kTenant, Coordinator::Ingest::kNever));
  return state.info.id;
}

absl::StatusOr<DocumentState> Embedded::WaitUntilRead(DocumentState state, const std::string& path) {
  LateProgress progress(
      fmt::format("ingest {}", OneLine(std::filesystem::path(path).filename().string(), 128)),
      options_.progress);
  while (state.phase == DocumentState::Phase::kWaiting || state.phase == DocumentState::Phase::kReading) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    PALIMPSEST_ASSIGN_OR_RETURN(state, coordinator_->WaitDocument(state.info.id, kTenant, state,
                                                                  std::chrono::seconds(1), *options_.cancel));
    if (state.total_tokens > 0) progress.Set(state.done_tokens, state.total_tokens);
  }
  if (state.phase == DocumentState::Phase::kFailed) {
    return Error(absl::StatusCode::kAborted, "document {}: {}", Quoted(path, 1024), state.error);
  }
  return state;
}

absl::StatusOr<IngestedDocument> Embedded::Ingest(const std::string& path, const std::string& text) {
  PALIMPSEST_RETURN_IF_ERROR(StartWorker());  // loading is not the document's time
  PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
  const TimePoint start = RealClock().Now();
  PALIMPSEST_ASSIGN_OR_RETURN(const DocumentState added,
                              coordinator_->AddDocument(path, text, kTenant, Coordinator::Ingest::kAlways));
  PALIMPSEST_ASSIGN_OR_RETURN(const DocumentState state, WaitUntilRead(added, path));
  return IngestedDocument{.info = state.info,
                          .path = path,
                          .blocks = state.blocks,
                          .host_bytes = state.host_bytes,
                          .ssd_bytes = state.ssd_bytes,
                          .seconds = Seconds(RealClock().Now() - start),
                          .already_known = added.already_known};
}

absl::StatusOr<Answer> Embedded::Ask(const Question& question) {
  AnswerRequest request;
  request.prompt = question.messages;
  for (const std::string& name : question.documents) {
    PALIMPSEST_ASSIGN_OR_RETURN(std::string id, FindDocument(name));
    request.documents.push_back(std::move(id));
  }
  request.options = question.options;
  request.sampling = question.sampling;
  request.may_cut = true;
  PALIMPSEST_RETURN_IF_ERROR(coordinator_->Check(request));
  PALIMPSEST_RETURN_IF_ERROR(StartWorker());
  PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
  Answer answer;
  Gather gather(question, answer, options_.progress);
  PALIMPSEST_RETURN_IF_ERROR(coordinator_->Answer(request, gather, *options_.cancel));
  return answer;
}

}  // namespace palimpsest
