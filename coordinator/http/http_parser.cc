#include <boost/beast/core/string.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <cctype>
#include <vector>

#include "coordinator/http/request_parser.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace beast = boost::beast;
namespace bhttp = boost::beast::http;

constexpr size_t kPieceBytes = 16 << 10;

std::string LowerCase(beast::string_view text) {
  std::string lower(text.data(), text.size());
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Of these a second one is an attack or a mistake; of all others it is a list.
bool MayRepeat(const std::string& name) {
  for (const std::string_view single :
       {"host", "content-length", "transfer-encoding", "authorization", "content-type", "expect"}) {
    if (name == single) return false;
  }
  return true;
}

class BeastParser final : public RequestParser {
 public:
  explicit BeastParser(Limits limits) : limits_(limits) {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(limits.header_bytes));
    parser_->body_limit(boost::none);  // the caller counts: the limit depends on the route
    parser_->eager(false);             // one step for each put, so that the head is seen before the body
  }

  State Put(std::string_view bytes, size_t& used) override {
    used = 0;
    body_ = {};
    if (state_ == State::kFailed || state_ == State::kDone) return state_;
    if (!started_) SkipEmptyLines(bytes, used);
    if (!started_) return state_ = State::kNeedMore;
    if (head_done_ && parser_->is_done()) return state_ = State::kDone;  // there was no body
    while (used < bytes.size()) {
      boost::system::error_code error;
      piece_.resize(kPieceBytes);
      parser_->get().body().data = piece_.data();
      parser_->get().body().size = piece_.size();
      parser_->get().body().more = true;
      used += parser_->put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), error);
      if (error == bhttp::error::need_buffer) error = {};
      if (error && error != bhttp::error::need_more) return Fail(StatusOf(error), error.message());
      body_ = {piece_.data(), piece_.size() - parser_->get().body().size};
      if (!head_done_ && parser_->is_header_done()) return state_ = TakeHead();
      if (!body_.empty()) return state_ = State::kBody;
      if (parser_->is_done()) return state_ = State::kDone;
      if (error == bhttp::error::need_more) break;
    }
    return state_ = State::kNeedMore;
  }

  bool started() const override { return started_; }
  const Head& head() const override { return head_; }
  std::string_view body() const override { return body_; }
  const Failure& failure() const override { return failure_; }

 private:
  // Some clients end a body with a line too many.
  void SkipEmptyLines(std::string_view bytes, size_t& used) {
    while (bytes.substr(used).starts_with("\r\n")) used += 2;
    started_ = used < bytes.size() && bytes.substr(used) != "\r";
  }

  State TakeHead() {
    head_done_ = true;
    const auto& message = parser_->get();
    head_.method = std::string(message.method_string());
    head_.target = std::string(message.target());
    head_.http10 = message.version() == 10;
    head_.keep_alive = parser_->keep_alive();
    int64_t count = 0;
    for (const auto& field : message) {
      if (++count > limits_.headers) {
        return Fail(431, fmt::format("more than {} headers (limits.headers)", limits_.headers));
      }
      const std::string name = LowerCase(field.name_string());
      const std::string value(field.value().data(), field.value().size());
      const auto [place, first] = head_.headers.emplace(name, value);
      if (first) continue;
      if (!MayRepeat(name)) return Fail(400, fmt::format("the header {} stands twice", name));
      place->second += ", " + value;
    }
    return CheckFraming();
  }

  State CheckFraming() {
    const bool has_length = head_.headers.contains("content-length");
    const auto coding = head_.headers.find("transfer-encoding");
    const bool has_coding = coding != head_.headers.end();
    if (has_length && has_coding) return Fail(400, "both Content-Length and Transfer-Encoding: send one");
    if (has_coding && head_.http10) return Fail(400, "Transfer-Encoding needs HTTP/1.1");
    if (has_coding && LowerCase(coding->second) != "chunked") {
      return Fail(400, "of transfer codings only chunked is understood");
    }
    if (!head_.http10 && !head_.headers.contains("host")) return Fail(400, "the header Host is missing");
    if (has_length) {
      const boost::optional<uint64_t> length = parser_->content_length();
      if (!length || *length > static_cast<uint64_t>(INT64_MAX)) return Fail(400, "bad Content-Length");
      head_.content_length = static_cast<int64_t>(*length);
    }
    head_.chunked = has_coding;
    if (const auto expect = head_.headers.find("expect"); expect != head_.headers.end()) {
      if (LowerCase(expect->second) != "100-continue") return Fail(417, "of Expect only 100-continue");
      head_.wants_continue = !head_.http10;
    }
    return State::kHead;
  }

  static int StatusOf(const boost::system::error_code& error) {
    return error == bhttp::error::header_limit ? 431 : 400;
  }

  State Fail(int status, std::string message) {
    if (status == 431 && message.find("limits.") == std::string::npos) {
      message = fmt::format("the headers are over {} bytes (limits.header_bytes)", limits_.header_bytes);
    } else if (status == 400) {
      message = fmt::format("not a valid HTTP/1.1 request: {}", message);
    }
    failure_ = {status, std::move(message)};
    return state_ = State::kFailed;
  }

  const Limits limits_;
  std::optional<bhttp::request_parser<bhttp::buffer_body>> parser_;
  State state_ = State::kNeedMore;
  bool started_ = false, head_done_ = false;
  Head head_;
  Failure failure_;
  std::vector<char> piece_;
  std::string_view body_;  // of piece_
};

}  // namespace

std::unique_ptr<RequestParser> RequestParser::Create(Limits limits) {
  return std::make_unique<BeastParser>(limits);
}

}  // namespace palimpsest::http
