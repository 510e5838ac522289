// /v1/documents: texts that questions are about. An upload is durable when it is answered; it is read in the
// background, and can be asked about meanwhile.
#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <charconv>
#include <fstream>
#include <optional>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/api_routes.h"
#include "coordinator/http/openai_text.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

constexpr int64_t kNameCharactersMax = 4096;
constexpr int64_t kWaitSecondsMax = 3600;
// Each that waits holds one of the server's threads, of which some must be left for everybody else.
struct Waits {
  static constexpr int64_t kMost = 16;
};
// A text is in memory as a whole until its client has taken the last of it.
struct Texts {
  static constexpr int64_t kMost = 4;
};
constexpr std::string_view kHowToSend =
    "send the text itself as the body: curl --data-binary @FILE -H 'Content-Type: text/plain' "
    "'.../v1/documents?name=FILE'";

std::string_view PhaseName(DocumentState::Phase phase) {
  switch (phase) {
    case DocumentState::Phase::kWaiting:
      return "waiting";
    case DocumentState::Phase::kReading:
      return "reading";
    case DocumentState::Phase::kReady:
      return "ready";
    case DocumentState::Phase::kFailed:
      return "failed";
  }
  return "failed";
}

bool IsOver(const DocumentState& state) {
  return state.phase == DocumentState::Phase::kReady || state.phase == DocumentState::Phase::kFailed;
}

// A path may be any bytes, JSON may not.
std::string NameText(const std::string& path) {
  return CheckUtf8(path).ok() ? path : OneLine(path, path.size());
}

json::object DocumentJson(const DocumentState& state) {
  json::object object{
      {"id", state.info.id},
      {"object", "document"},
      {"name", NameText(state.info.path)},
      {"bytes", state.info.bytes},
      {"tokens", state.info.tokens},
      {"created_at", state.info.created_unix_ms / 1000},
      {"content_hash", state.info.content_hash},
      {"status", json::string(PhaseName(state.phase).data(), PhaseName(state.phase).size())},
      {"progress", json::object{{"done_tokens", state.done_tokens}, {"total_tokens", state.total_tokens}}},
      {"seconds", state.seconds},
      {"blocks", state.blocks},
      {"tier_bytes", json::object{{"host", state.host_bytes}, {"ssd", state.ssd_bytes}}}};
  object["error"] = state.error.empty() ? json::value(nullptr) : json::value(state.error);
  return object;
}

void SendJson(Response& response, int status, const json::value& value) {
  response.Send(status, "application/json", PrintJson(value));
}

// ?name=, and whole seconds of ?wait=; anything else is a mistake.
absl::Status CheckQuery(const Request& request, std::initializer_list<const char*> known) {
  for (const auto& [name, value] : request.query) {
    const bool is_known =
        std::any_of(known.begin(), known.end(), [&](const char* one) { return name == one; });
    if (!is_known) {
      return AtParam(
          InvalidArgument("unknown query parameter {}; there are {}", Quoted(name), fmt::join(known, ", ")),
          OneLine(name, 64), "unknown_parameter");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Duration> WaitOf(const Request& request) {
  const auto found = request.query.find("wait");
  if (found == request.query.end()) return Duration::zero();
  const std::string& text = found->second;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0 || seconds > kWaitSecondsMax) {
    return AtParam(InvalidArgument("wait {} is not a whole number of seconds from 0 to {}", Quoted(text),
                                   kWaitSecondsMax),
                   "wait", "invalid_value");
  }
  return Duration(std::chrono::seconds(seconds));
}

// One of the places of a kind, if one is free.
template <class Kind>
class Place {
 public:
  Place() : taken_(count_.fetch_add(1) < Kind::kMost) {}
  ~Place() { count_.fetch_sub(1); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  bool taken() const { return taken_; }

 private:
  static inline std::atomic<int64_t> count_{0};
  const bool taken_;
};

// The state once the document is read, or after `limit`; as it is now if too many wait already.
absl::StatusOr<DocumentState> Waited(Coordinator& coordinator, const std::string& tenant, DocumentState state,
                                     Duration limit, const CancelToken& gone) {
  if (IsOver(state) || limit == Duration::zero()) return state;
  const Place<Waits> place;
  if (!place.taken()) return state;
  const Deadline deadline = Deadline::After(RealClock(), limit);
  const bool already_known = state.already_known;
  while (!IsOver(state) && !deadline.Expired()) {
    PALIMPSEST_RETURN_IF_ERROR(gone.Check());
    PALIMPSEST_ASSIGN_OR_RETURN(
        state, coordinator.WaitDocument(state.info.id, tenant, state, deadline.Remaining(), gone));
  }
  state.already_known = already_known;
  return state;
}

// The declared type, if it is text that we take: nullopt if all is well.
std::optional<std::string> WrongType(const Request& request) {
  const std::string type = MediaType(request);
  if (type == "multipart/form-data" || type == "application/x-www-form-urlencoded") {
    return fmt::format("forms are not taken; {}", kHowToSend);
  }
  if (!type.empty() && type != "text/plain" && type != "text/markdown" &&
      type != "application/octet-stream") {
    return fmt::format("documents are text/plain or text/markdown; {}", kHowToSend);
  }
  std::string header = HeaderOf(request, "content-type");
  std::transform(header.begin(), header.end(), header.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const size_t charset = header.find("charset=");
  if (charset == std::string::npos) return std::nullopt;
  std::string_view name = std::string_view(header).substr(charset + std::string_view("charset=").size());
  if (name.starts_with('"')) name.remove_prefix(1);
  if (name.starts_with("utf-8") || name.starts_with("utf8") || name.starts_with("us-ascii"))
    return std::nullopt;
  return std::string("documents are UTF-8; convert the text, for instance with iconv -t UTF-8");
}

// What the server wrote to disk as it came.
absl::StatusOr<std::string> ReadUpload(const Request& request) {
  if (request.body_file.empty()) return request.body;
  std::ifstream file(request.body_file, std::ios::binary | std::ios::ate);
  const std::streamoff bytes = file.tellg();
  if (!file || bytes < 0) return Internal("an upload cannot be read back from the disk");
  std::string text(static_cast<size_t>(bytes), '\0');
  file.seekg(0);
  if (!file.read(text.data(), bytes)) return Internal("an upload cannot be read back from the disk");
  return text;
}

absl::StatusOr<DocumentState> Add(const ApiParts& parts, const Request& request, const CancelToken& gone) {
  PALIMPSEST_RETURN_IF_ERROR(CheckQuery(request, {"name", "wait"}));
  PALIMPSEST_ASSIGN_OR_RETURN(const Duration wait, WaitOf(request));
  const auto found = request.query.find("name");
  const std::string name = found == request.query.end() ? "upload" : found->second;
  const int64_t characters = CountCharacters(name);
  if (characters < 1 || characters > kNameCharactersMax) {
    return AtParam(
        InvalidArgument("name has {} characters; expected 1 to {}", characters, kNameCharactersMax), "name",
        "invalid_value");
  }
  PALIMPSEST_ASSIGN_OR_RETURN(std::string text, ReadUpload(request));
  const int64_t bytes_max = parts.config.limits.document_bytes;
  if (static_cast<int64_t>(text.size()) > bytes_max) {
    return InvalidArgument("the document has {} bytes, limits.document_bytes allows {}", text.size(),
                           bytes_max);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(
      DocumentState state,
      parts.coordinator->AddDocument(name, text, request.tenant, Coordinator::Ingest::kIfNew));
  std::string().swap(text);  // the catalog has it; a wait may be long
  return Waited(*parts.coordinator, request.tenant, std::move(state), wait, gone);
}

void SendDocumentError(Response& response, const absl::Status& status) {
  const bool is_missing = status.code() == absl::StatusCode::kNotFound;
  // Longer than the window or than any worker's memory: the document's fault, unlike a full disk.
  if (IsOverWindow(status)) {
    return SendApiError(response, AtParam(Error(absl::StatusCode::kInvalidArgument, "{}", Message(status)),
                                          "", "context_length_exceeded"));
  }
  SendApiError(response, AtParam(status, is_missing ? "id" : "", is_missing ? "document_not_found" : ""));
}

void Create(const ApiParts& parts, const Request& request, Response& response) {
  if (const auto wrong = WrongType(request)) return SendHttpError(response, 415, *wrong);
  const absl::StatusOr<DocumentState> state = Add(parts, request, response.gone());
  if (!state.ok()) return SendDocumentError(response, state.status());
  json::object object = DocumentJson(*state);
  object["already_known"] = state->already_known;
  response.Send(state->already_known ? 200 : 201, "application/json", PrintJson(object),
                {{"location", "/v1/documents/" + state->info.id}});
}

void List(const ApiParts& parts, const Request& request, Response& response) {
  const absl::StatusOr<std::vector<DocumentState>> documents =
      parts.coordinator->ListDocuments(request.tenant);
  if (!documents.ok()) return SendDocumentError(response, documents.status());
  json::array data;
  for (const DocumentState& state : *documents) data.push_back(DocumentJson(state));
  SendJson(response, 200, json::object{{"object", "list"}, {"data", std::move(data)}});
}

absl::StatusOr<DocumentState> Find(const ApiParts& parts, const Request& request, const CancelToken& gone) {
  PALIMPSEST_RETURN_IF_ERROR(CheckQuery(request, {"wait"}));
  PALIMPSEST_ASSIGN_OR_RETURN(const Duration wait, WaitOf(request));
  PALIMPSEST_ASSIGN_OR_RETURN(DocumentState state,
                              parts.coordinator->GetDocument(request.parameters.at("id"), request.tenant));
  return Waited(*parts.coordinator, request.tenant, std::move(state), wait, gone);
}

void Get(const ApiParts& parts, const Request& request, Response& response) {
  const absl::StatusOr<DocumentState> state = Find(parts, request, response.gone());
  if (!state.ok()) return SendDocumentError(response, state.status());
  SendJson(response, 200, DocumentJson(*state));
}

void GetText(const ApiParts& parts, const Request& request, Response& response) {
  const Place<Texts> place;
  if (!place.taken()) {
    return SendError(
        response,
        Error(absl::StatusCode::kUnavailable,
              "{} texts of documents are being sent, as many as may; come again in 1 s", Texts::kMost));
  }
  absl::StatusOr<std::string> text =
      parts.coordinator->DocumentText(request.parameters.at("id"), request.tenant);
  if (!text.ok()) return SendDocumentError(response, text.status());
  // A browser must not take it for a page of ours.
  response.Send(200, "text/plain; charset=utf-8", std::move(*text), {{"x-content-type-options", "nosniff"}});
}

void Delete(const ApiParts& parts, const Request& request, Response& response) {
  const absl::StatusOr<DocumentState> state =
      parts.coordinator->GetDocument(request.parameters.at("id"), request.tenant);
  // One whose record is damaged can still be deleted, by its whole id.
  const bool readable = state.ok() || state.status().code() == absl::StatusCode::kDataLoss;
  if (!readable) return SendDocumentError(response, state.status());
  const std::string id = state.ok() ? state->info.id : request.parameters.at("id");
  const absl::Status deleted = parts.coordinator->DeleteDocument(id, request.tenant);
  if (!deleted.ok()) return SendDocumentError(response, deleted);
  SendJson(response, 200, json::object{{"id", id}, {"object", "document"}, {"deleted", true}});
}

}  // namespace

void AddDocumentRoutes(const ApiParts& parts, Router& router) {
  using Handle = void (*)(const ApiParts& parts, const Request& request, Response& response);
  const auto add = [&](const char* method, const char* path, Route::Body body, Handle handle) {
    router.Add(
        {method, path, body, Route::Access::kKey,
         [parts, handle](const Request& request, Response& response) { handle(parts, request, response); }});
  };
  add("POST", "/v1/documents", Route::Body::kFile, Create);
  add("GET", "/v1/documents", Route::Body::kNone, List);
  add("GET", "/v1/documents/{id}", Route::Body::kNone, Get);
  add("GET", "/v1/documents/{id}/text", Route::Body::kNone, GetText);
  add("DELETE", "/v1/documents/{id}", Route::Body::kNone, Delete);
}

}  // namespace palimpsest::http
