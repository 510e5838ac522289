// What handlers talk to, without a socket and without a worker: a response that keeps what was sent, and a
// coordinator that plays a script.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/coordinator.h"
#include "coordinator/http/http.h"
#include "proto/base/status.h"
#include "tests/coordinator/byte_tokenizer.h"

namespace palimpsest::testing {

class FakeResponse final : public http::Response {
 public:
  void Send(int status, std::string_view content_type, std::string body,
            const http::Headers& more = {}) override {
    status_ = status;
    type_ = content_type;
    body_ = std::move(body);
    headers_ = more;
    ended_ = true;
  }
  void BeginStream(int status, std::string_view content_type, const http::Headers& more = {}) override {
    status_ = status;
    type_ = content_type;
    headers_ = more;
  }
  bool Write(std::string_view part) override {
    const std::lock_guard lock(mu_);
    if (writes_left_ == 0) return false;
    --writes_left_;
    body_ += part;
    return true;
  }
  void End() override { ended_ = true; }
  const CancelToken& gone() const override { return gone_; }
  const std::string& request_id() const override { return id_; }

  void TakeOnly(int64_t writes) { writes_left_ = writes; }
  void Leave() { gone_.Set(); }

  int status() const { return status_; }
  const std::string& type() const { return type_; }
  std::string body() const {
    const std::lock_guard lock(mu_);
    return body_;
  }
  const http::Headers& headers() const { return headers_; }
  bool ended() const { return ended_; }

 private:
  const std::string id_ = "r-1";
  mutable std::mutex mu_;
  int status_ = 0;
  std::string type_, body_;
  http::Headers headers_;
  std::atomic<bool> ended_{false};
  int64_t writes_left_ = 1 << 30;
  CancelToken gone_;
};

inline ServedModel FakeModel() {
  ServedModel model;
  model.name = "tiny";
  model.hash = std::string(64, 'a');
  model.window_tokens = 100;
  model.created_unix = 1700000000;
  model.tokenizer = ByteTokenizer();
  const auto chat_template = ChatTemplate::Parse(
      "{% for m in messages %}{{ '<start>' + m.role[0] + ':' + m.content + '<end>' }}{% endfor %}a:");
  auto planner = PromptPlanner::Create(model.tokenizer, *chat_template, {},
                                       {.model = "tiny", .window_tokens = 100, .question_bytes = 10'000});
  PALIMPSEST_CHECK(planner.ok(), "{}", Message(planner.status()));
  model.planner = std::make_shared<const PromptPlanner>(std::move(*planner));
  return model;
}

class FakeCoordinator final : public Coordinator {
 public:
  using Script =
      std::function<absl::Status(const AnswerRequest& request, AnswerSink& sink, const CancelToken& cancel)>;

  Script script = [](const AnswerRequest&, AnswerSink&, const CancelToken&) { return absl::OkStatus(); };
  std::vector<AnswerRequest> requests;
  std::map<std::string, std::pair<DocumentState, std::string>> documents;  // by id: state and text
  std::string last_tenant;
  int64_t waits = 0;              // after which a document is ready
  std::function<void()> on_wait;  // instead: it is ready when this returns
  absl::Status add_error;
  Registry* workers = nullptr;  // of tests that ask for it

  absl::Status Check(const AnswerRequest&) override { return absl::OkStatus(); }
  absl::Status Answer(const AnswerRequest& request, AnswerSink& sink, const CancelToken& cancel) override {
    requests.push_back(request);
    return script(request, sink, cancel);
  }
  absl::StatusOr<DocumentState> AddDocument(const std::string& name, const std::string& text,
                                            const std::string& tenant, Ingest /*ingest*/) override {
    last_tenant = tenant;
    PALIMPSEST_RETURN_IF_ERROR(add_error);
    PALIMPSEST_RETURN_IF_ERROR(CheckUtf8(text));
    for (auto& [id, document] : documents) {
      if (document.second != text) continue;
      DocumentState known = document.first;
      known.already_known = true;
      return known;
    }
    DocumentState state;
    state.phase = DocumentState::Phase::kReading;
    state.info.id = fmt::format("doc-{:016x}", documents.size());
    state.info.path = name;
    state.info.bytes = state.info.tokens = state.total_tokens = static_cast<int64_t>(text.size());
    state.info.created_unix_ms = 1'700'000'000'000;
    documents[state.info.id] = {state, text};
    return state;
  }
  absl::StatusOr<DocumentState> GetDocument(const std::string& id, const std::string& tenant) override {
    last_tenant = tenant;
    const auto found = documents.find(id);
    if (found == documents.end()) return NotFound("document {} does not exist", id);
    return found->second.first;
  }
  absl::StatusOr<DocumentState> WaitDocument(const std::string& id, const std::string& /*tenant*/,
                                             const DocumentState& /*seen*/, Duration /*limit*/,
                                             const CancelToken& /*cancel*/) override {
    DocumentState& state = documents.at(id).first;
    if (on_wait) {
      DocumentState ready = state;
      on_wait();
      ready.phase = DocumentState::Phase::kReady;
      return ready;
    }
    if (++state.done_tokens, --waits <= 0) state.phase = DocumentState::Phase::kReady;
    return state;
  }
  absl::StatusOr<std::string> DocumentText(const std::string& id, const std::string& tenant) override {
    PALIMPSEST_RETURN_IF_ERROR(GetDocument(id, tenant).status());
    return documents.at(id).second;
  }
  absl::StatusOr<std::vector<DocumentState>> ListDocuments(const std::string& tenant) override {
    last_tenant = tenant;
    std::vector<DocumentState> list;
    for (const auto& [id, document] : documents) list.push_back(document.first);
    return list;
  }
  absl::Status DeleteDocument(const std::string& id, const std::string& /*tenant*/) override {
    if (documents.erase(id) == 0) return NotFound("document {} does not exist", id);
    return absl::OkStatus();
  }
  const ServedModel& model() const override { return model_; }
  CoordinatorStatus Status() const override { return {}; }
  Registry& registry() override {
    PALIMPSEST_CHECK(workers != nullptr, "no registry");
    return *workers;
  }
  absl::Status Ready() const override { return absl::OkStatus(); }
  bool Drain(Duration /*limit*/) override { return true; }
  void Stop() override {}

 private:
  const ServedModel model_ = FakeModel();
};

// Events as a worker sends them.
inline proto::TokenEvent Token(int64_t sequence, char byte, double logprob = 0) {
  proto::TokenEvent token;
  token.set_sequence(sequence);
  token.set_token(static_cast<unsigned char>(byte));
  token.set_text(std::string(1, byte));
  token.set_logprob(logprob);
  return token;
}

inline proto::DoneEvent Done(int64_t prompt, int64_t generated, int64_t cached = 0,
                             const std::string& reason = "stop") {
  proto::DoneEvent done;
  done.set_finish_reason(reason);
  done.mutable_usage()->set_prompt_tokens(prompt);
  done.mutable_usage()->set_completion_tokens(generated);
  done.mutable_usage()->set_cached_tokens(cached);
  done.mutable_receipt()->set_policy("full");
  return done;
}

}  // namespace palimpsest::testing
