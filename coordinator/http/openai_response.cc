#include "coordinator/http/openai_response.h"

#include <algorithm>
#include <boost/json.hpp>
#include <random>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/openai_text.h"
#include "coordinator/receipt_json.h"
#include "proto/base/json.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

constexpr double kLogprobMin = -9999;  // stands for minus infinity, which JSON cannot write

std::string DrawId(bool chat) {
  std::random_device random;
  std::string id = chat ? "chatcmpl-" : "cmpl-";
  for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", random());
  return id;
}

double Finite(double logprob) { return std::max(logprob, kLogprobMin); }

json::object UsageJson(const proto::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"total_tokens", usage.prompt_tokens() + usage.completion_tokens()},
          {"prompt_tokens_details", json::object{{"cached_tokens", usage.cached_tokens()}}}};
}

json::object OwnJson(std::span<const std::string> documents, const proto::Receipt& receipt) {
  return {{"documents", json::array(documents.begin(), documents.end())}, {"receipt", ReceiptJson(receipt)}};
}

std::string Event(const json::value& data) { return "data: " + PrintJson(data) + "\n\n"; }

json::array BytesOf(std::string_view text) {
  json::array bytes;
  for (const char c : text) bytes.push_back(static_cast<int64_t>(static_cast<unsigned char>(c)));
  return bytes;
}

}  // namespace

OpenAiFormat::OpenAiFormat(Options options) : options_(std::move(options)), id_(DrawId(options_.chat)) {}

std::string OpenAiFormat::Shown(int32_t token) const {
  return ValidText(options_.tokenizer->Decode(std::span(&token, 1), /*with_special=*/true));
}

int64_t OpenAiFormat::Characters(int32_t token) const { return CountCharacters(Shown(token)); }

json::object OpenAiFormat::Frame(std::string_view object) const {
  return {{"id", id_},
          {"object", json::string(object.data(), object.size())},
          {"created", options_.created},
          {"model", options_.model},
          {"system_fingerprint", options_.fingerprint}};
}

json::object OpenAiFormat::ChatLogprob(const proto::TokenEvent& token) const {
  const auto one = [this](int32_t id, double logprob) {
    const std::string bytes = options_.tokenizer->Decode(std::span(&id, 1), /*with_special=*/true);
    return json::object{{"token", ValidText(bytes)}, {"logprob", Finite(logprob)}, {"bytes", BytesOf(bytes)}};
  };
  json::object object = one(token.token(), token.logprob());
  json::array top;
  for (const proto::TokenLogprob& other : token.top()) top.push_back(one(other.token(), other.logprob()));
  object["top_logprobs"] = std::move(top);
  return object;
}

json::object OpenAiFormat::CompletionLogprobs(std::span<const proto::TokenEvent> tokens,
                                              int64_t characters) const {
  json::array words, logprobs, tops, offsets;
  for (const proto::TokenEvent& token : tokens) {
    if (!IsTold(token)) continue;
    words.push_back(json::string(Shown(token.token())));
    logprobs.push_back(Finite(token.logprob()));
    offsets.push_back(characters);
    characters += Characters(token.token());
    json::object top;
    for (const proto::TokenLogprob& other : token.top()) {
      top.emplace(Shown(other.token()), Finite(other.logprob()));  // the best of those that look the same
    }
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(words)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json::value OpenAiFormat::Logprobs(std::span<const proto::TokenEvent> tokens, int64_t characters) const {
  if (!options_.logprobs) return nullptr;
  if (!options_.chat) return CompletionLogprobs(tokens, characters);
  json::array content;
  for (const proto::TokenEvent& token : tokens) {
    if (IsTold(token)) content.push_back(ChatLogprob(token));
  }
  return json::object{{"content", std::move(content)}, {"refusal", nullptr}};
}

std::string OpenAiFormat::Whole(std::span<const ChoiceAnswer> choices,
                                std::span<const std::string> documents) const {
  json::object object = Frame(options_.chat ? "chat.completion" : "text_completion");
  json::array list, receipts;
  std::vector<proto::Usage> usages;
  for (const ChoiceAnswer& choice : choices) {
    json::object one{{"index", list.size()}};
    if (options_.chat) {
      one["message"] = json::object{{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    } else {
      one["text"] = choice.text;
    }
    one["logprobs"] = Logprobs(choice.tokens, 0);
    one["finish_reason"] = choice.done->finish_reason();
    list.push_back(std::move(one));
    usages.push_back(choice.done->usage());
    receipts.push_back(ReceiptJson(choice.done->receipt()));
  }
  object["choices"] = std::move(list);
  object["usage"] = UsageJson(TotalUsage(usages));
  json::object own = OwnJson(documents, choices.front().done->receipt());
  if (choices.size() > 1) own["receipts"] = std::move(receipts);
  object["palimpsest"] = std::move(own);
  return PrintJson(object);
}

json::object OpenAiFormat::Chunk(json::object choice) const {
  json::object object = Frame(options_.chat ? "chat.completion.chunk" : "text_completion");
  object["choices"] = json::array{std::move(choice)};
  if (options_.include_usage) object["usage"] = nullptr;  // as OpenAI's: the last chunk has it
  return object;
}

std::string OpenAiFormat::RoleEvent(int64_t choice) const {
  return Event(Chunk({{"index", choice},
                      {"delta", json::object{{"role", "assistant"}, {"content", ""}}},
                      {"logprobs", nullptr},
                      {"finish_reason", nullptr}}));
}

std::string OpenAiFormat::TokenEvent(int64_t choice, const proto::TokenEvent& token,
                                     int64_t characters) const {
  json::object one{{"index", choice}};
  if (options_.chat) {
    one["delta"] = json::object{{"content", token.text()}};
  } else {
    one["text"] = token.text();
  }
  one["logprobs"] = Logprobs(std::span(&token, 1), characters);
  one["finish_reason"] = nullptr;
  return Event(Chunk(std::move(one)));
}

std::string OpenAiFormat::DoneEvent(int64_t choice, const proto::DoneEvent& done,
                                    std::span<const std::string> documents) const {
  json::object one{{"index", choice}};
  if (!options_.chat) {
    one["text"] = done.text();
  } else if (done.text().empty()) {
    one["delta"] = json::object{};
  } else {
    one["delta"] = json::object{{"content", done.text()}};
  }
  one["logprobs"] = nullptr;
  one["finish_reason"] = done.finish_reason();
  json::object chunk = Chunk(std::move(one));
  chunk["palimpsest"] = OwnJson(documents, done.receipt());
  return Event(chunk);
}

std::string OpenAiFormat::UsageEvent(const proto::Usage& usage) const {
  json::object object = Frame(options_.chat ? "chat.completion.chunk" : "text_completion");
  object["choices"] = json::array{};
  object["usage"] = UsageJson(usage);
  return Event(object);
}

std::string_view OpenAiFormat::LastEvent() { return "data: [DONE]\n\n"; }

std::string OpenAiFormat::ErrorEvent(const absl::Status& status, std::string_view request_id) {
  return "data: " + ApiErrorBody(status, request_id) + "\n\n";
}

proto::Usage TotalUsage(std::span<const proto::Usage> choices) {
  proto::Usage total = choices.front();
  for (const proto::Usage& usage : choices.subspan(1)) {
    total.set_completion_tokens(total.completion_tokens() + usage.completion_tokens());
  }
  return total;
}

}  // namespace palimpsest::http
