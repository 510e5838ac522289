#include "coordinator/http/answer_sinks.h"

#include <algorithm>

#include "coordinator/http/api_error.h"
#include "proto/base/status.h"

namespace palimpsest::http {

bool CollectingSink::OnStart(int64_t /*prompt_tokens*/, const std::vector<std::string>& documents) {
  documents_ = documents;
  return true;
}

bool CollectingSink::OnPrefill(int64_t /*done_tokens*/, int64_t /*total_tokens*/) { return true; }

bool CollectingSink::OnToken(int64_t choice, const proto::TokenEvent& token) {
  ChoiceAnswer& answer = choices_.at(static_cast<size_t>(choice));
  answer.text += token.text();
  if (logprobs_) answer.tokens.push_back(token);
  return true;
}

bool CollectingSink::OnDone(int64_t choice, const proto::DoneEvent& done) {
  ChoiceAnswer& answer = choices_.at(static_cast<size_t>(choice));
  answer.text += done.text();
  answer.done = done;
  return true;
}

bool CollectingSink::AllDone() const {
  return std::all_of(choices_.begin(), choices_.end(),
                     [](const ChoiceAnswer& choice) { return choice.done.has_value(); });
}

StreamingSink::StreamingSink(const OpenAiFormat& format, int64_t choices, Response& response,
                             Duration heartbeat)
    : format_(format),
      heartbeat_(heartbeat),
      cancel_(&response.gone()),
      response_(response),
      characters_(static_cast<size_t>(choices), 0),
      usages_(static_cast<size_t>(choices)) {}

StreamingSink::~StreamingSink() { StopBeating(); }

bool StreamingSink::Write(std::string_view event) {
  if (cancel_.IsSet()) return false;
  wrote_ = true;
  if (response_.Write(event)) return true;
  cancel_.Set();
  return false;
}

bool StreamingSink::OnStart(int64_t /*prompt_tokens*/, const std::vector<std::string>& documents) {
  const std::lock_guard lock(mu_);
  documents_ = documents;
  // The last one keeps a proxy from collecting what should flow.
  response_.BeginStream(200, "text/event-stream",
                        {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}});
  begun_ = true;
  beats_ = std::thread([this] { Beat(); });
  if (!format_.options().chat) return true;
  for (size_t choice = 0; choice < usages_.size(); ++choice) {
    if (!Write(format_.RoleEvent(static_cast<int64_t>(choice)))) return false;
  }
  return true;
}

bool StreamingSink::OnPrefill(int64_t /*done_tokens*/, int64_t /*total_tokens*/) { return !cancel_.IsSet(); }

bool StreamingSink::OnToken(int64_t choice, const proto::TokenEvent& token) {
  const std::lock_guard lock(mu_);
  const bool told = format_.options().logprobs && !format_.options().tokenizer->IsEnd(token.token());
  if (token.text().empty() && !told) return !cancel_.IsSet();
  int64_t& characters = characters_.at(static_cast<size_t>(choice));
  const int64_t before = characters;
  if (told) characters += format_.Characters(token.token());
  return Write(format_.TokenEvent(choice, token, before));
}

bool StreamingSink::OnDone(int64_t choice, const proto::DoneEvent& done) {
  const std::lock_guard lock(mu_);
  usages_.at(static_cast<size_t>(choice)) = done.usage();
  ++done_;
  return Write(format_.DoneEvent(choice, done, documents_));
}

void StreamingSink::Finish(const absl::Status& status) {
  StopBeating();
  const std::lock_guard lock(mu_);
  absl::Status end = status;
  if (end.ok() && done_ < static_cast<int64_t>(usages_.size())) {
    end = Internal("the answer ended after {} of {} choices", done_, usages_.size());
  }
  if (!begun_) return SendApiError(response_, end);
  if (!end.ok()) {
    Write(OpenAiFormat::ErrorEvent(end, response_.request_id()));
  } else {
    if (format_.options().include_usage) Write(format_.UsageEvent(TotalUsage(usages_)));
    Write(OpenAiFormat::LastEvent());
  }
  response_.End();
}

void StreamingSink::Beat() {
  std::unique_lock lock(mu_);
  while (!stopped_.wait_for(lock, heartbeat_, [this] { return stop_; })) {
    if (!wrote_) Write(": wait\n\n");
    wrote_ = false;
  }
}

void StreamingSink::StopBeating() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (beats_.joinable()) beats_.join();
}

}  // namespace palimpsest::http
