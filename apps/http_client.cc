#include "apps/http_client.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <optional>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr Duration kCancelInterval = std::chrono::milliseconds(20);
constexpr int64_t kBodyBytesMax = int64_t{1} << 30;
constexpr size_t kPartBytes = 64 << 10;

struct Url {
  bool tls = false;
  std::string host, port, base;  // base: "" or "/prefix"
  std::string authority() const {
    const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
    return port == (tls ? "443" : "80") ? name : name + ":" + port;
  }
};

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  Url url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    url.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return InvalidArgument("--server {} does not begin with http:// or https://", Quoted(text, 256));
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  url.base = std::string(rest.substr(slash));
  while (url.base.ends_with('/')) url.base.pop_back();
  std::string_view host = rest.substr(0, slash);
  url.port = url.tls ? "443" : "80";
  const size_t bracket = host.find(']');  // of an IPv6 address
  const size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    const absl::StatusOr<int64_t> port = ParseInteger(host.substr(colon + 1));
    if (!port.ok() || *port < 1 || *port > 65535) {
      return InvalidArgument("--server {}: its port is not a number from 1 to 65535", Quoted(text, 256));
    }
    url.port = std::string(host.substr(colon + 1));
    host = host.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  url.host = std::string(host);
  const bool plain = text.find_first_of(" \t\r\n?#@") == std::string_view::npos;
  if (host.empty() || !plain) {
    return InvalidArgument("--server {} is not http://HOST:PORT", Quoted(text, 256));
  }
  return url;
}

absl::Status Transport(const Url& url, std::string_view what, const error_code& error) {
  return Error(absl::StatusCode::kUnavailable,
               "the server at {} {}: {}; is `palimpsest serve` running there?", url.authority(), what,
               error.message());
}

class Client final : public HttpClient {
 public:
  Client(Url url, Options options) : url_(std::move(url)), options_(std::move(options)) {}
  absl::StatusOr<HttpReply> Send(const HttpCall& call) override;

 private:
  // Runs what was started until `done`, the token is set or the limit is over.
  absl::Status Wait(asio::io_context& io, const bool& done, Duration limit, std::string_view what) const;
  absl::StatusOr<Tcp::socket> Connect(asio::io_context& io) const;
  template <typename Stream>
  absl::StatusOr<HttpReply> Exchange(asio::io_context& io, Stream& stream, const HttpCall& call) const;
  template <typename Stream>
  absl::Status ReadBody(asio::io_context& io, Stream& stream, beast::flat_buffer& buffer,
                        http::response_parser<http::buffer_body>& parser, const HttpCall& call,
                        HttpReply& reply) const;
  http::request<http::string_body> RequestOf(const HttpCall& call) const;

  const Url url_;
  const Options options_;
};

absl::Status Client::Wait(asio::io_context& io, const bool& done, Duration limit,
                          std::string_view what) const {
  const Deadline deadline = Deadline::After(RealClock(), limit);
  io.restart();
  while (!done) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    PALIMPSEST_RETURN_IF_ERROR(deadline.Check(what));
    io.run_one_for(std::min(kCancelInterval, deadline.Remaining()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Tcp::socket> Client::Connect(asio::io_context& io) const {
  error_code error;
  Tcp::resolver resolver(io);
  const auto addresses = resolver.resolve(url_.host, url_.port, error);
  if (error) return Transport(url_, "cannot be found", error);
  Tcp::socket socket(io);
  bool done = false;
  asio::async_connect(socket, addresses, [&](const error_code& result, const Tcp::endpoint&) {
    error = result;
    done = true;
  });
  const absl::Status waited = Wait(io, done, options_.connect_limit, "connecting to " + url_.authority());
  if (!waited.ok()) {
    error_code ignored;
    socket.close(ignored);
    while (!done) io.run_one();  // the handler holds references to this frame
    return waited;
  }
  if (error) return Transport(url_, "cannot be reached", error);
  socket.set_option(Tcp::no_delay(true), error);
  return socket;
}

http::request<http::string_body> Client::RequestOf(const HttpCall& call) const {
  http::request<http::string_body> request;
  request.method_string(call.method);
  request.target(url_.base + call.target);
  request.version(11);
  request.set(http::field::host, url_.authority());
  request.set(http::field::user_agent, "palimpsest");
  request.set(http::field::connection, "close");
  if (!options_.api_key.empty()) request.set(http::field::authorization, "Bearer " + options_.api_key);
  if (!call.content_type.empty()) request.set(http::field::content_type, call.content_type);
  request.body() = call.body;
  request.prepare_payload();
  return request;
}

// One step of an exchange: starts `begin` with a handler, waits, and closes the stream if the wait was given
// up.
template <typename Begin, typename Close>
absl::Status Step(const Begin& begin, const Close& close, error_code& error,
                  const std::function<absl::Status(const bool&)>& wait, asio::io_context& io) {
  bool done = false;
  begin([&](const error_code& result, auto&&...) {
    error = result;
    done = true;
  });
  absl::Status waited = wait(done);
  if (waited.ok()) return waited;
  close();
  while (!done && io.run_one() > 0) {
  }
  return waited;
}

template <typename Stream>
absl::Status Client::ReadBody(asio::io_context& io, Stream& stream, beast::flat_buffer& buffer,
                              http::response_parser<http::buffer_body>& parser, const HttpCall& call,
                              HttpReply& reply) const {
  const bool in_parts = call.on_part && reply.status == 200;
  std::vector<char> part(kPartBytes);
  const auto wait = [&](const bool& done) {
    return Wait(io, done, options_.silence_limit, "waiting for " + url_.authority());
  };
  const auto close = [&] {
    error_code ignored;
    beast::get_lowest_layer(stream).close(ignored);
  };
  while (!parser.is_done()) {
    parser.get().body().data = part.data();
    parser.get().body().size = part.size();
    error_code error;
    PALIMPSEST_RETURN_IF_ERROR(
        Step([&](auto handler) { http::async_read_some(stream, buffer, parser, std::move(handler)); }, close,
             error, wait, io));
    if (error == http::error::need_buffer) error = {};
    if (error) return Transport(url_, "broke off", error);
    const std::string_view got(part.data(), part.size() - parser.get().body().size);
    if (in_parts) {
      if (!got.empty() && !call.on_part(got)) {
        close();
        return absl::CancelledError("nobody listens any more");
      }
    } else {
      reply.body += got;
    }
  }
  return absl::OkStatus();
}

template <typename Stream>
absl::StatusOr<HttpReply> Client::Exchange(asio::io_context& io, Stream& stream, const HttpCall& call) const {
  const auto wait = [&](const bool& done) {
    return Wait(io, done, options_.silence_limit, "waiting for " + url_.authority());
  };
  const auto close = [&] {
    error_code ignored;
    beast::get_lowest_layer(stream).close(ignored);
  };
  error_code error;
  http::request<http::string_body> request = RequestOf(call);
  // A server that refuses a large body answers before it has read it: that answer counts, not the broken
  // write.
  error_code write_error;
  PALIMPSEST_RETURN_IF_ERROR(
      Step([&](auto handler) { http::async_write(stream, request, std::move(handler)); }, close, write_error,
           wait, io));
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(kBodyBytesMax);
  PALIMPSEST_RETURN_IF_ERROR(
      Step([&](auto handler) { http::async_read_header(stream, buffer, parser, std::move(handler)); }, close,
           error, wait, io));
  if (error) return Transport(url_, "did not answer", write_error ? write_error : error);
  HttpReply reply;
  reply.status = parser.get().result_int();
  for (const auto& field : parser.get()) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers[name] = std::string(field.value());
  }
  if (request.method() == http::verb::head) return reply;
  PALIMPSEST_RETURN_IF_ERROR(ReadBody(io, stream, buffer, parser, call, reply));
  return reply;
}

absl::StatusOr<HttpReply> Client::Send(const HttpCall& call) {
  asio::io_context io;
  PALIMPSEST_ASSIGN_OR_RETURN(Tcp::socket socket, Connect(io));
  if (!url_.tls) return Exchange(io, socket, call);
  asio::ssl::context tls(asio::ssl::context::tls_client);
  error_code error;
  tls.set_default_verify_paths(error);
  tls.set_verify_mode(asio::ssl::verify_peer, error);
  asio::ssl::stream<Tcp::socket> stream(std::move(socket), tls);
  stream.set_verify_callback(asio::ssl::host_name_verification(url_.host), error);
  SSL_set_tlsext_host_name(stream.native_handle(), url_.host.c_str());
  const auto wait = [&](const bool& done) {
    return Wait(io, done, options_.connect_limit, "the TLS handshake with " + url_.authority());
  };
  const auto close = [&] {
    error_code ignored;
    stream.lowest_layer().close(ignored);
  };
  PALIMPSEST_RETURN_IF_ERROR(
      Step([&](auto handler) { stream.async_handshake(asio::ssl::stream_base::client, std::move(handler)); },
           close, error, wait, io));
  if (error)
    return Transport(url_, "has no certificate that is trusted here (SSL_CERT_FILE names others)", error);
  return Exchange(io, stream, call);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(std::string_view url, Options options) {
  PALIMPSEST_ASSIGN_OR_RETURN(Url parsed, ParseUrl(url));
  return std::make_unique<Client>(std::move(parsed), std::move(options));
}

std::string UrlEncode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain =
        (byte < 0x80 && std::isalnum(byte) != 0) || c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", byte);
    }
  }
  return encoded;
}

}  // namespace palimpsest
