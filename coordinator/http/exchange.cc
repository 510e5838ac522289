#include "coordinator/http/exchange.h"

#include <ctime>
#include <exception>

#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

std::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 507:
      return "Insufficient Storage";
    default:
      return "Status";
  }
}

// "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale.
std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// A header is one line whatever a handler put into it.
std::string OneHeader(std::string_view value) {
  std::string clean(value);
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return clean;
}

}  // namespace

std::string ResponseHead(int status, std::string_view content_type, const Headers& more,
                         const std::string& request_id, bool http10, bool close, bool chunked,
                         int64_t content_length) {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", status, Reason(status), HttpDate());
  if (!content_type.empty()) head += fmt::format("Content-Type: {}\r\n", OneHeader(content_type));
  if (chunked) head += "Transfer-Encoding: chunked\r\n";
  if (content_length >= 0 && status != 204) head += fmt::format("Content-Length: {}\r\n", content_length);
  if (close) {
    head += "Connection: close\r\n";
  } else if (http10) {
    head += "Connection: keep-alive\r\n";
  }
  if (!request_id.empty()) head += fmt::format("X-Request-Id: {}\r\n", request_id);
  head += "X-Content-Type-Options: nosniff\r\n";
  for (const auto& [name, value] : more) head += fmt::format("{}: {}\r\n", OneHeader(name), OneHeader(value));
  return head + "\r\n";
}

bool Exchange::Append(std::string_view bytes) {
  bytes_ += static_cast<int64_t>(bytes.size());
  if (options_.outbox->Append(bytes)) return true;
  gone_.Set();
  return false;
}

void Exchange::AppendHead(int status, std::string_view content_type, const Headers& more,
                          int64_t content_length) {
  status_ = status;
  // Without a length HTTP/1.0 knows the end of an answer by the end of the connection.
  const bool chunked = content_length < 0 && !options_.http10;
  close_after_ = !options_.keep_alive || options_.draining->load(std::memory_order_relaxed) ||
                 (content_length < 0 && options_.http10);
  Append(ResponseHead(status, content_type, more, request.request_id, options_.http10, close_after_, chunked,
                      content_length));
}

void Exchange::Send(int status, std::string_view content_type, std::string body, const Headers& more) {
  PALIMPSEST_CHECK(phase_ == Phase::kNothing, "a second answer to one request");
  phase_ = Phase::kEnded;
  // Also to a client that closed its sending side: it may still read.
  AppendHead(status, content_type, more, static_cast<int64_t>(body.size()));
  if (!options_.head_only && status != 204) Append(body);
}

void Exchange::BeginStream(int status, std::string_view content_type, const Headers& more) {
  PALIMPSEST_CHECK(phase_ == Phase::kNothing, "a second answer to one request");
  phase_ = Phase::kStream;
  AppendHead(status, content_type, more, -1);
}

bool Exchange::Write(std::string_view part) {
  PALIMPSEST_CHECK(phase_ == Phase::kStream, "Write outside of a stream");
  if (gone_.IsSet()) return false;
  if (part.empty() || options_.head_only) return true;  // an empty chunk would end the stream
  if (options_.http10) return Append(part);
  std::string chunk = fmt::format("{:x}\r\n", part.size());
  chunk.append(part).append("\r\n");
  return Append(chunk);
}

void Exchange::End() {
  PALIMPSEST_CHECK(phase_ == Phase::kStream, "End outside of a stream");
  phase_ = Phase::kEnded;
  if (!options_.http10 && !options_.head_only) Append("0\r\n\r\n");
}

void Exchange::Run() {
  try {
    options_.route->handler(request, *this);
  } catch (const std::exception& error) {  // of a library, or no memory: one request fails, not the server
    PALIMPSEST_LOG(kError, "request {} handler of {}: {}", LogName(request.request_id),
                   LogName(options_.route->pattern), LogName(error.what()));
  }
  if (phase_ == Phase::kNothing) SendError(*this, Internal("the handler gave no answer"));
  if (phase_ == Phase::kStream)
    close_after_ = true;  // cut short, so that the client sees that it is not whole
  grant.reset();
  upload.reset();
  request.body = {};
  finished_.store(true, std::memory_order_release);
}

}  // namespace palimpsest::http
