#include "coordinator/http/http.h"

#include <algorithm>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

// "/v1/x" gives {"v1", "x"}; "/v1/x/" has an empty third segment and so is another path.
std::vector<std::string_view> Segments(std::string_view path) {
  std::vector<std::string_view> segments;
  if (path.starts_with('/')) path.remove_prefix(1);
  for (;;) {
    const size_t slash = path.find('/');
    segments.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

bool IsParameter(std::string_view segment) { return segment.starts_with('{') && segment.ends_with('}'); }

// How many segments of the route's pattern are literal, or -1 if it does not fit.
int LiteralMatch(const Route& route, std::vector<std::string_view> path,
                 std::map<std::string, std::string>& parameters) {
  const std::vector<std::string_view> expected = Segments(route.pattern);
  if (route.takes_rest && path.size() > expected.size()) {
    const char* const rest = path[expected.size() - 1].data();
    const char* const end = path.back().data() + path.back().size();
    path.resize(expected.size());
    path.back() = {rest, static_cast<size_t>(end - rest)};
  }
  if (expected.size() != path.size()) return -1;
  int literal = 0;
  parameters.clear();
  for (size_t i = 0; i < path.size(); ++i) {
    if (!IsParameter(expected[i])) {
      if (expected[i] != path[i]) return -1;
      ++literal;
    } else if (path[i].empty()) {
      return -1;
    } else {
      parameters.emplace(expected[i].substr(1, expected[i].size() - 2), path[i]);
    }
  }
  return literal;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80             ? 1
                          : (lead & 0xE0) == 0xC0 ? 2
                          : (lead & 0xF0) == 0xE0 ? 3
                          : (lead & 0xF8) == 0xF0 ? 4
                                                  : 0;
    if (length == 0 || i + length > text.size()) return false;
    if (length > 1 && !IsPlainText(text.substr(i, length))) return false;
    i += length;
  }
  return true;
}

std::string JsonString(std::string_view text) {
  std::string clean;
  if (!IsUtf8(text)) {
    clean = OneLine(text, 4096);  // a message of ours has quoted what was not text; this is for the rest
    text = clean;
  }
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json.push_back('\\');
      json.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      json.push_back(c);
    }
  }
  json.push_back('"');
  return json;
}

// The names that clients of this API know.
std::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string_view ErrorCode(const absl::Status& status, int http) {
  if (status.code() == absl::StatusCode::kUnimplemented) return "unsupported";
  if (status.code() == absl::StatusCode::kCancelled) return "cancelled";
  switch (http) {
    case 429:
      return "too_many_requests";
    case 503:
      return "unavailable";
    case 504:
      return "timeout";
    case 507:
      return "out_of_space";
    default:
      return "";
  }
}

}  // namespace

void Router::Add(Route route) {
  PALIMPSEST_CHECK(route.pattern.starts_with('/'), "route {}", route.pattern);
  PALIMPSEST_CHECK(route.handler != nullptr, "route {} has no handler", route.pattern);
  routes_.push_back(std::move(route));
}

Router::Match Router::Find(std::string_view method, std::string_view path) const {
  Match match;
  int best = -1;
  std::map<std::string, std::string> parameters;
  const std::vector<std::string_view> segments = Segments(path);
  std::vector<std::pair<int, const Route*>> same_path;
  for (const Route& route : routes_) {
    const int literal = LiteralMatch(route, segments, parameters);
    if (literal < 0) continue;
    same_path.emplace_back(literal, &route);
    if (route.method != method || literal <= best) continue;
    best = literal;
    match.route = &route;
    match.parameters = parameters;
  }
  for (const auto& [literal, route] : same_path) match.allowed.push_back(route->method);
  std::sort(match.allowed.begin(), match.allowed.end());
  match.allowed.erase(std::unique(match.allowed.begin(), match.allowed.end()), match.allowed.end());
  return match;
}

std::string ErrorBody(int status, std::string_view message, std::string_view code, std::string_view param) {
  const auto or_null = [](std::string_view text) { return text.empty() ? "null" : JsonString(text); };
  return fmt::format(R"({{"error":{{"message":{},"type":{},"code":{},"param":{}}}}})", JsonString(message),
                     JsonString(ErrorType(status)), or_null(code), or_null(param));
}

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:  // not a 501: clients ask again after any 5xx, and it stays so
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:  // a quota passes, a full disk does not
      return RetryAfter(status).has_value() ? 429 : 507;
    case absl::StatusCode::kCancelled:
      return 499;  // nobody reads it; the usual name in logs
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

void SendError(Response& response, const absl::Status& status, std::string_view param) {
  const int http = HttpStatusOf(status);
  Headers more;
  if (const auto seconds = RetryAfter(status)) {
    more["retry-after"] = std::to_string(*seconds);
  } else if (http == 503) {
    more["retry-after"] = "1";
  }
  std::string message = Message(status);
  if (http == 500) {
    PALIMPSEST_LOG(kError, "request {} failed: {}", LogName(response.request_id()), status);
    message = "internal error; the server's log has the details under this answer's X-Request-Id";
  }
  response.Send(http, "application/json", ErrorBody(http, message, ErrorCode(status, http), param), more);
}

}  // namespace palimpsest::http
