#include "apps/server_client.h"

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "apps/input_files.h"
#include "apps/late_progress.h"
#include "coordinator/receipt_json.h"
#include "proto/base/clock.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

constexpr std::string_view kIdStart = "doc-";
constexpr Duration kPollInterval = std::chrono::milliseconds(100);
constexpr int kOk = 200, kFailed = 300;

const json::value* At(const json::value& value, std::string_view key) {
  const json::object* const object = value.if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}

std::string TextAt(const json::value& value, std::string_view key) {
  const json::value* const found = At(value, key);
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

int64_t NumberAt(const json::value& value, std::string_view key) {
  const json::value* const found = At(value, key);
  if (found == nullptr) return 0;
  boost::system::error_code error;
  const int64_t number = found->to_number<int64_t>(error);
  return error ? 0 : number;
}

absl::StatusOr<json::value> Parse(std::string_view body) {
  json::error_code error;
  json::value value = json::parse(json::string_view(body.data(), body.size()), error);
  if (error)
    return Error(absl::StatusCode::kUnavailable, "the server's answer is not JSON; is it palimpsest?");
  return value;
}

absl::StatusCode CodeOf(int status) {
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return absl::StatusCode::kInvalidArgument;
    case 401:
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 501:
      return absl::StatusCode::kUnimplemented;
    case 507:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

// What the server says is wrong: the message of its error object.
std::string ServerMessage(const json::value& body) {
  const json::value* const error = At(body, "error");
  const std::string message = error == nullptr ? "" : TextAt(*error, "message");
  return message.empty() ? "the server refused" : OneLine(message, 4096);
}

absl::Status ServerError(const HttpReply& reply) {
  const absl::StatusOr<json::value> body = Parse(reply.body);
  absl::Status status = Error(CodeOf(reply.status), "{} (HTTP {})",
                              ServerMessage(body.ok() ? *body : json::value()), reply.status);
  const auto retry = reply.headers.find("retry-after");
  const bool says_so = Message(status).find("come again in ") != std::string::npos;
  if (retry == reply.headers.end() || says_so) return status;
  return Error(status.code(), "{}; come again in {} s", Message(status), OneLine(retry->second, 16));
}

// Prompt and answer together do not fit.
bool IsTooLong(const HttpReply& reply) {
  if (reply.status != 400) return false;
  const absl::StatusOr<json::value> body = Parse(reply.body);
  const json::value* const error = body.ok() ? At(*body, "error") : nullptr;
  return error != nullptr && TextAt(*error, "code") == "context_length_exceeded";
}

DocumentInfo InfoOf(const json::value& document) {
  DocumentInfo info;
  info.id = TextAt(document, "id");
  info.path = TextAt(document, "name");
  info.bytes = NumberAt(document, "bytes");
  info.tokens = NumberAt(document, "tokens");
  info.created_unix_ms = NumberAt(document, "created_at") * 1000;
  info.content_hash = TextAt(document, "content_hash");
  return info;
}

// What is ours in a request. A catalyst's file is read on this side: its text travels.
json::object OwnBody(const Question& question, const std::vector<DocumentId>& documents) {
  const PromptOptions& options = question.options;
  PolicySpec policy = options.policy;
  json::object own{{"documents", json::array(documents.begin(), documents.end())},
                   {"recall", RecallText(options.recall)},
                   {"prefill", std::string(PrefillName(options.prefill))},
                   {"question", options.question_visible ? "visible" : "hidden"}};
  if (policy.catalyst == PolicySpec::Catalyst::kFile) {
    policy.catalyst = PolicySpec::Catalyst::kDefault;
    own["catalyst"] = options.catalyst;
  }
  if (!options.answer_prefix.empty()) own["answer_prefix"] = options.answer_prefix;
  own["policy"] = PolicyText(policy);
  return own;
}

json::object ChatBody(const Question& question, const std::string& model,
                      const std::vector<DocumentId>& documents) {
  const proto::Sampling& sampling = question.sampling;
  json::object body;
  body["model"] = model;
  json::array& messages = body["messages"].emplace_array();
  for (const ChatMessage& message : question.messages) {
    messages.push_back(json::object{{"role", message.role}, {"content", message.content}});
  }
  body["stream"] = true;
  body["stream_options"] = json::object{{"include_usage", true}};
  body["max_tokens"] = sampling.max_tokens();
  body["temperature"] = sampling.temperature();
  body["top_k"] = sampling.top_k();
  body["top_p"] = sampling.top_p();
  body["min_p"] = sampling.min_p();
  body["repetition_penalty"] = sampling.repetition_penalty();
  body["seed"] = static_cast<int64_t>(sampling.seed());
  if (sampling.stop_size() > 0) body["stop"] = json::array(sampling.stop().begin(), sampling.stop().end());
  body["palimpsest"] = OwnBody(question, documents);
  return body;
}

// Takes the events of a stream apart and puts the answer together.
class StreamReader {
 public:
  StreamReader(const Question& question, Answer& answer) : question_(question), answer_(answer) {}

  bool Push(std::string_view part) {
    held_ += part;
    size_t end;
    while ((end = held_.find("\n\n")) != std::string::npos) {
      const std::string event = held_.substr(0, end);
      held_.erase(0, end + 2);
      if (event.starts_with("data: ")) Take(std::string_view(event).substr(6));
      if (!error_.ok()) return false;
    }
    return true;
  }
  // What was wrong, or that the stream ended too early.
  absl::Status Finish() const {
    PALIMPSEST_RETURN_IF_ERROR(error_);
    if (done_) return absl::OkStatus();
    return Error(absl::StatusCode::kUnavailable, "the server broke the answer off; ask again");
  }

 private:
  void Take(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    absl::StatusOr<json::value> chunk = Parse(data);
    if (!chunk.ok()) {
      error_ = chunk.status();
    } else if (At(*chunk, "error") != nullptr) {
      // The status was 200 when the stream began, whatever has happened since.
      error_ = Error(absl::StatusCode::kUnavailable, "{}", ServerMessage(*chunk));
    } else {
      TakeChunk(*chunk);
    }
  }

  void TakeChunk(const json::value& chunk) {
    const json::value* const choices = At(chunk, "choices");
    if (choices != nullptr && choices->is_array() && !choices->get_array().empty()) {
      const json::value& choice = choices->get_array().front();
      const json::value* const delta = At(choice, "delta");
      const std::string text = delta == nullptr ? "" : TextAt(*delta, "content");
      answer_.text += text;
      if (question_.on_text && !text.empty()) question_.on_text(text);
      const std::string reason = TextAt(choice, "finish_reason");
      if (!reason.empty()) answer_.finish_reason = reason;
    }
    if (const json::value* const usage = At(chunk, "usage"); usage != nullptr && usage->is_object()) {
      answer_.usage.set_prompt_tokens(NumberAt(*usage, "prompt_tokens"));
      answer_.usage.set_completion_tokens(NumberAt(*usage, "completion_tokens"));
      if (const json::value* const details = At(*usage, "prompt_tokens_details")) {
        answer_.usage.set_cached_tokens(NumberAt(*details, "cached_tokens"));
      }
    }
    if (const json::value* const own = At(chunk, "palimpsest")) {
      if (const json::value* const receipt = At(*own, "receipt")) answer_.receipt = ReceiptFromJson(*receipt);
    }
  }

  const Question& question_;
  Answer& answer_;
  std::string held_;
  absl::Status error_;
  bool done_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ServerClient>> ServerClient::Open(const Config& config,
                                                                 const ClientOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(
      std::unique_ptr<HttpClient> http,
      HttpClient::Create(options.server, {.api_key = options.api_key, .cancel = options.cancel}));
  return std::unique_ptr<ServerClient>(new ServerClient(config, options, std::move(http)));
}

absl::StatusOr<std::string> ServerClient::Fetch(const HttpCall& call) {
  PALIMPSEST_ASSIGN_OR_RETURN(HttpReply reply, http_->Send(call));
  if (reply.status >= kOk && reply.status < kFailed) return std::move(reply.body);
  return ServerError(reply);
}

absl::Status ServerClient::Check() { return ModelName().status(); }

absl::StatusOr<std::string> ServerClient::ModelName() {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string body, Fetch({.target = "/v1/models"}));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value models, Parse(body));
  const json::value* const data = At(models, "data");
  if (data == nullptr || !data->is_array() || data->get_array().empty()) {
    return Error(absl::StatusCode::kUnavailable, "the server names no model; is it palimpsest?");
  }
  return TextAt(data->get_array().front(), "id");
}

absl::StatusOr<IngestedDocument> ServerClient::Ingest(const std::string& path, const std::string& text) {
  const TimePoint start = RealClock().Now();
  PALIMPSEST_ASSIGN_OR_RETURN(IngestedDocument document, Put(path, text));
  PALIMPSEST_ASSIGN_OR_RETURN(document, WaitUntilRead(std::move(document)));
  document.seconds = Seconds(RealClock().Now() - start);
  return document;
}

absl::StatusOr<IngestedDocument> ServerClient::Put(const std::string& path, const std::string& text) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string body,
                              Fetch({.method = "POST",
                                     .target = "/v1/documents?name=" + UrlEncode(path),
                                     .content_type = "text/plain",
                                     .body = text}));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value document, Parse(body));
  const json::value* const known = At(document, "already_known");
  return IngestedDocument{.info = InfoOf(document),
                          .path = path,
                          .already_known = known != nullptr && known->is_bool() && known->get_bool()};
}

absl::StatusOr<IngestedDocument> ServerClient::WaitUntilRead(IngestedDocument ingested) {
  const std::string& path = ingested.path;
  LateProgress progress("ingest " + OneLine(std::filesystem::path(path).filename().string(), 128),
                        options_.progress);
  const std::string target = "/v1/documents/" + UrlEncode(ingested.info.id);
  json::value document;
  for (bool first = true;; first = false) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    if (!first) std::this_thread::sleep_for(kPollInterval);
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string body, Fetch({.target = target}));
    PALIMPSEST_ASSIGN_OR_RETURN(document, Parse(body));
    if (TextAt(document, "status") != "waiting" && TextAt(document, "status") != "reading") break;
    if (const json::value* const far = At(document, "progress")) {
      progress.Set(NumberAt(*far, "done_tokens"), NumberAt(*far, "total_tokens"));
    }
  }
  if (TextAt(document, "status") == "failed") {
    return Error(absl::StatusCode::kAborted, "document {}: {}", Quoted(path, 1024),
                 OneLine(TextAt(document, "error"), 4096));
  }
  ingested.info = InfoOf(document);
  ingested.blocks = NumberAt(document, "blocks");
  if (const json::value* const bytes = At(document, "tier_bytes")) {
    ingested.host_bytes = NumberAt(*bytes, "host");
    ingested.ssd_bytes = NumberAt(*bytes, "ssd");
  }
  return ingested;
}

absl::StatusOr<DocumentId> ServerClient::FindDocument(const std::string& name) {
  if (name.starts_with(kIdStart)) return name;
  std::error_code ignored;
  if (name != kStdin && !std::filesystem::exists(name, ignored)) {
    return NotFound(
        "document {} is neither a file here nor an id (doc-...); `palimpsest documents list` shows all",
        Quoted(name, 4096));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text,
                              ReadInput(name, config_.limits.document_bytes, *options_.cancel));
  PALIMPSEST_ASSIGN_OR_RETURN(const IngestedDocument ingested, Ingest(name, text));
  return ingested.info.id;
}

absl::StatusOr<Answer> ServerClient::Ask(const Question& question) {
  Answer answer;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string model, ModelName());
  for (const std::string& name : question.documents) {
    PALIMPSEST_ASSIGN_OR_RETURN(std::string id, FindDocument(name));
    answer.documents.push_back(std::move(id));
  }
  StreamReader reader(question, answer);
  json::object body = ChatBody(question, model, answer.documents);
  const auto send = [&] {
    return http_->Send({.method = "POST",
                        .target = "/v1/chat/completions",
                        .content_type = "application/json",
                        .body = json::serialize(body),
                        .on_part = [&](std::string_view part) { return reader.Push(part); }});
  };
  absl::StatusOr<HttpReply> reply = send();
  // What does not fit of --max-tokens is cut off, as without a server: asked for no number, it gives what
  // fits.
  if (reply.ok() && IsTooLong(*reply)) {
    body.erase("max_tokens");
    reply = send();
  }
  // An error in the stream ends the call from our side: it says more than that.
  if (!reply.ok()) {
    const absl::Status read = reader.Finish();
    return reply.status().code() == absl::StatusCode::kCancelled && !options_.cancel->IsSet()
               ? read
               : reply.status();
  }
  if (reply->status != kOk) return ServerError(*reply);
  PALIMPSEST_RETURN_IF_ERROR(reader.Finish());
  return answer;
}

absl::StatusOr<std::vector<DocumentInfo>> ServerClient::List() {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string body, Fetch({.target = "/v1/documents"}));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value list, Parse(body));
  std::vector<DocumentInfo> documents;
  const json::value* const data = At(list, "data");
  if (data == nullptr || !data->is_array()) return documents;
  for (const json::value& document : data->get_array()) documents.push_back(InfoOf(document));
  return documents;
}

absl::StatusOr<Document> ServerClient::Show(const std::string& id) {
  const std::string target = "/v1/documents/" + UrlEncode(id);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string body, Fetch({.target = target}));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value document, Parse(body));
  PALIMPSEST_ASSIGN_OR_RETURN(std::string text, Fetch({.target = target + "/text"}));
  return Document{.info = InfoOf(document), .text = std::move(text), .token_ids = {}};
}

absl::StatusOr<DocumentId> ServerClient::Delete(const std::string& id) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string body,
                              Fetch({.method = "DELETE", .target = "/v1/documents/" + UrlEncode(id)}));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value deleted, Parse(body));
  return TextAt(deleted, "id");
}

}  // namespace palimpsest
