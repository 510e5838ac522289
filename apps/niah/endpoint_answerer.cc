// An OpenAI-compatible server: /v1/chat/completions, streamed, greedy.
//
// The context stands in front of the first question, and the words that an answer begins with end each
// question, for no server can be relied on to go on with an answer that is begun (RULER asks servers so,
// too).
#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "apps/http_client.h"
#include "apps/niah/answerer.h"
#include "proto/base/clock.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

constexpr int kOk = 200;

const json::value* At(const json::value* value, std::string_view key) {
  if (value == nullptr) return nullptr;
  const json::object* const object = value->if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}
const json::value* First(const json::value* value) {
  const json::array* const array = value == nullptr ? nullptr : value->if_array();
  return array == nullptr || array->empty() ? nullptr : &array->front();
}
std::string TextOf(const json::value* value) {
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}
int64_t NumberOf(const json::value* value) {
  json::error_code error;
  const int64_t number = value == nullptr ? 0 : value->to_number<int64_t>(error);
  return error ? 0 : number;
}

absl::Status EndpointError(const HttpReply& reply) {
  json::error_code error;
  const json::value body = json::parse(reply.body, error);
  std::string message = error ? "" : TextOf(At(At(&body, "error"), "message"));
  if (message.empty() && !error) message = TextOf(At(&body, "message"));
  if (message.empty()) message = reply.body.substr(0, 200);
  return Error(absl::StatusCode::kUnavailable, "the endpoint answered {}: {}", reply.status,
               OneLine(message, 500));
}

double SecondsSince(TimePoint start) {
  return std::chrono::duration<double>(RealClock().Now() - start).count();
}

// Takes a stream of events apart: lines that begin with "data:".
class StreamReader {
 public:
  explicit StreamReader(TimePoint start) : start_(start) {}

  void Push(std::string_view part) {
    held_ += part;
    size_t end;
    while ((end = held_.find('\n')) != std::string::npos) {
      Take(std::string_view(held_).substr(0, end));
      held_.erase(0, end + 1);
    }
  }
  // The trial, or what was wrong: an error in the stream, or none of its ends.
  absl::StatusOr<NiahTrial> Finish() {
    if (!held_.empty()) Take(held_);
    if (!error_.empty())
      return Error(absl::StatusCode::kUnavailable, "the endpoint: {}", OneLine(error_, 500));
    if (!ended_) return Error(absl::StatusCode::kUnavailable, "the endpoint broke the answer off");
    trial_.decode_seconds = std::max(0.0, last_seconds_ - trial_.first_token_seconds);
    return trial_;
  }

 private:
  void Take(std::string_view line) {
    if (!line.starts_with("data:")) return;
    line.remove_prefix(5);
    while (line.starts_with(' ')) line.remove_prefix(1);
    while (line.ends_with('\r')) line.remove_suffix(1);
    if (line == "[DONE]") {
      ended_ = true;
      return;
    }
    json::error_code error;
    const json::value event = json::parse(json::string_view(line.data(), line.size()), error);
    if (error) {
      error_ = "an event of its stream is not JSON";
    } else if (const json::value* const failed = At(&event, "error")) {
      error_ = TextOf(At(failed, "message"));
      if (error_.empty()) error_ = PrintJson(*failed);
    } else {
      TakeEvent(event);
    }
  }

  void TakeEvent(const json::value& event) {
    const json::value* const choice = First(At(&event, "choices"));
    const std::string text = TextOf(At(At(choice, "delta"), "content"));
    if (!text.empty()) {
      last_seconds_ = SecondsSince(start_);
      if (trial_.answer.empty()) trial_.first_token_seconds = last_seconds_;
      trial_.answer += text;
    }
    if (!TextOf(At(choice, "finish_reason")).empty()) ended_ = true;
    if (const json::value* const usage = At(&event, "usage"); usage != nullptr && usage->is_object()) {
      trial_.prompt_tokens = NumberOf(At(usage, "prompt_tokens"));
      trial_.output_tokens = NumberOf(At(usage, "completion_tokens"));
      trial_.cached_tokens = NumberOf(At(At(usage, "prompt_tokens_details"), "cached_tokens"));
    }
  }

  const TimePoint start_;
  NiahTrial trial_{.measured = false};
  std::string held_, error_;
  double last_seconds_ = 0;
  bool ended_ = false;
};

class EndpointAnswerer final : public NiahAnswerer {
 public:
  EndpointAnswerer(std::unique_ptr<HttpClient> http, std::string model, NiahPrompter prompter)
      : http_(std::move(http)), model_(std::move(model)), prompter_(std::move(prompter)) {}

  std::string name() const override { return model_; }
  std::string numerics() const override { return ""; }
  std::string_view full_name() const override { return "endpoint"; }
  absl::StatusOr<int64_t> CountTokens(const NiahSample& sample) override {
    return prompter_.CountTokens(sample);
  }
  // What its window is, it says itself.
  absl::Status Check(const NiahSample&, const NiahPolicy&, bool) override { return absl::OkStatus(); }
  bool FindsBlocks(const NiahPolicy&) const override { return false; }
  absl::StatusOr<NiahReading> Read(const NiahSample&) override { return NiahReading(); }
  bool fails_alone() const override { return true; }
  absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork>) override {
    return std::optional<double>();
  }
  absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                const NiahPolicy& policy, bool visible) override;

 private:
  std::string BodyOf(const NiahSample& sample, std::span<const std::string> answers) const;

  const std::unique_ptr<HttpClient> http_;
  const std::string model_;
  NiahPrompter prompter_;
};

std::string EndpointAnswerer::BodyOf(const NiahSample& sample, std::span<const std::string> answers) const {
  json::array messages;
  for (size_t i = 0; i <= answers.size(); ++i) {
    const NiahTurn& turn = sample.turns[i];
    const std::string question = turn.question + turn.answer_prefix;
    messages.push_back(
        json::object{{"role", "user"}, {"content", i == 0 ? sample.context + "\n" + question : question}});
    if (i < answers.size()) messages.push_back(json::object{{"role", "assistant"}, {"content", answers[i]}});
  }
  return json::serialize(json::object{{"model", model_},
                                      {"messages", std::move(messages)},
                                      {"max_tokens", sample.answer_tokens},
                                      {"temperature", 0},
                                      {"stream", true},
                                      {"stream_options", {{"include_usage", true}}}});
}

absl::StatusOr<NiahTrial> EndpointAnswerer::Ask(const NiahSample& sample,
                                                std::span<const std::string> answers,
                                                const NiahPolicy& /*policy*/, bool /*visible*/) {
  StreamReader reader(RealClock().Now());
  PALIMPSEST_ASSIGN_OR_RETURN(const HttpReply reply, http_->Send({.method = "POST",
                                                                  .target = "/v1/chat/completions",
                                                                  .content_type = "application/json",
                                                                  .body = BodyOf(sample, answers),
                                                                  .on_part = [&](std::string_view part) {
                                                                    reader.Push(part);
                                                                    return true;
                                                                  }}));
  if (reply.status != kOk) return EndpointError(reply);
  return reader.Finish();
}

// The first model that the endpoint lists.
absl::StatusOr<std::string> ModelOf(HttpClient& http) {
  PALIMPSEST_ASSIGN_OR_RETURN(const HttpReply reply, http.Send({.target = "/v1/models"}));
  if (reply.status != kOk) return EndpointError(reply);
  json::error_code error;
  const json::value models = json::parse(reply.body, error);
  const std::string id = error ? "" : TextOf(At(First(At(&models, "data")), "id"));
  if (!id.empty()) return id;
  return Error(absl::StatusCode::kUnavailable, "the endpoint lists no model; name it with --endpoint-model");
}

}  // namespace

absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeEndpointAnswerer(Model& model, const NiahEndpoint& endpoint,
                                                                   const CancelToken* cancel) {
  std::string url = endpoint.url;
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);  // as clients of the API are told it
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http,
                              HttpClient::Create(url, {.api_key = endpoint.api_key, .cancel = cancel}));
  std::string name = endpoint.model;
  if (name.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(name, ModelOf(*http));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  return std::make_unique<EndpointAnswerer>(
      std::move(http), std::move(name),
      NiahPrompter(std::move(planner), model.tokenizer(), PrefillChoice::kExact, GreedySampling(0)));
}

}  // namespace palimpsest
