// One coroutine a connection that reads requests, hands them to handlers and waits for them, with a reader
// and a writer beside it. All three run on the one I/O thread, so they share the connection without locks;
// what handlers touch is in Outbox and Exchange, which have their own.
//
// The reader goes on while a handler works, into a bounded buffer: so a client that leaves is noticed at
// once. The end of a client's sending counts as leaving (a half-close does too: a handler is told that the
// client is gone, but a whole answer is still sent).
#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <optional>
#include <set>
#include <thread>

#include "coordinator/http/connections.h"
#include "coordinator/http/handler_pool.h"
#include "coordinator/http/listener.h"
#include "coordinator/http/request_check.h"
#include "coordinator/http/request_meter.h"
#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kAheadBytesMax = 64 << 10;  // read before they are asked for
constexpr size_t kWriteBytes = 64 << 10;
constexpr size_t kDiskBytes = 256 << 10;  // of an upload, written at once
constexpr int64_t kBodiesBytesMax = int64_t{64}
                                    << 20;  // of all bodies in memory; parsed, tiny values take 15 times
constexpr int64_t kUploadsMax = 16;         // at once; each holds up to limits.document_bytes of disk
constexpr int64_t kBodyBytesPerSecondMin = 1 << 10;  // a byte now and then is no progress
constexpr milliseconds kTick{500};  // how often a connection in work looks at its time limits
constexpr seconds kLinger{2};       // for a client to read the refusal of what it still sends
constexpr milliseconds kTlsGoodbye{500};

TimePoint Now() { return std::chrono::steady_clock::now(); }

// Whether a body comes fast enough: a byte within `limit`, and from one `limit` to the next 1 KiB/s, whatever
// came before.
class BodyPace {
 public:
  explicit BodyPace(seconds limit) : limit_(limit) {}

  void Count(size_t bytes) {
    last_ = Now();
    bytes_ += static_cast<int64_t>(bytes);
  }
  // The time until now was not the client's.
  void BeginAnew() {
    begun_ = last_ = Now();
    bytes_ = 0;
  }
  TimePoint next_look() const { return std::min(last_, begun_) + limit_; }
  // What is wrong with it; empty: nothing.
  std::string TooSlow() {
    if (Now() < next_look()) return "";
    if (Now() >= last_ + limit_) {
      return fmt::format("no byte of the body came for {} s (limits.idle_seconds); send it without a pause",
                         limit_.count());
    }
    const int64_t least = limit_.count() * kBodyBytesPerSecondMin;
    if (bytes_ < least) {
      return fmt::format(
          "{} bytes of the body came in {} s (limits.idle_seconds), at least {} must; send it faster", bytes_,
          limit_.count(), least);
    }
    begun_ = Now();
    bytes_ = 0;
    return "";
  }

 private:
  const seconds limit_;
  TimePoint begun_ = Now(), last_ = begun_;
  int64_t bytes_ = 0;  // since begun_
};

class Connection;

// What the connections of one listener share; the I/O thread's but for what is atomic.
struct Hub {
  Hub(HttpServer::Options given, bool only_loopback, Router routes)
      : options(std::move(given)),
        loopback(only_loopback),
        router(std::move(routes)),
        pool(options.config.limits.running + options.config.limits.waiting + 32),
        meter(options.name, options.metrics) {}

  const HttpServer::Options options;
  const bool loopback;
  const Router router;
  asio::io_context io{1};
  asio::thread_pool disk{1};  // writes uploads: a slow disk must not hold up others' answers
  HandlerPool pool;
  RequestMeter meter;
  CancelToken stop;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> open{0};
  std::set<Connection*> connections;
  int64_t body_bytes = 0, uploads = 0;
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Hub& hub, tcp::socket socket, std::string client, std::shared_ptr<TlsContext> tls)
      : hub_(hub),
        limits_(hub.options.config.limits),
        client_(std::move(client)),
        socket_(std::move(socket)),
        tls_context_(std::move(tls)),
        event_(hub.io),
        room_event_(hub.io),
        out_event_(hub.io),
        ahead_max_(std::max(kAheadBytesMax, static_cast<size_t>(limits_.header_bytes) + 4096)) {
    if (tls_context_ != nullptr) tls_.emplace(socket_, ::SSL_new(tls_context_->native()));
  }

  void Start();
  void Wake() { event_.cancel(); }
  // Ends everything on this connection; its coroutines notice and return.
  void Close();

 private:
  awaitable<void> Main(std::shared_ptr<Connection> self);
  awaitable<void> Reader(std::shared_ptr<Connection> self);
  awaitable<void> Writer(std::shared_ptr<Connection> self);
  awaitable<bool> Handshake();
  awaitable<bool> OneRequest();  // false: the connection is done
  awaitable<Refusal> ReadHead(RequestParser& parser, bool& quiet_end);
  awaitable<Refusal> ReadBody(RequestParser& parser, Exchange& exchange, int64_t bytes_max, bool& quiet_end);
  awaitable<void> Handle(std::shared_ptr<Exchange> exchange);
  awaitable<void> Flush();
  awaitable<void> Goodbye();
  awaitable<absl::Status> OnDisk(std::function<absl::Status()> work);
  awaitable<size_t> ReadSome(asio::mutable_buffer into, error_code& error);
  awaitable<size_t> WriteSome(asio::const_buffer from, error_code& error);
  awaitable<void> Wait(TimePoint until);

  RequestParser::State Feed(RequestParser& parser);
  absl::Status Keep(std::string_view piece, Exchange& exchange);
  void Refuse(const Refusal& refusal, const Admitted& admitted, const RequestParser::Head& head, bool close);
  void ReleaseBody();
  bool Drips();
  bool CutIfStalled();
  bool over() const { return closed_ || read_end_ || broken_; }

  Hub& hub_;
  const Config::Limits& limits_;
  const std::string client_;
  tcp::socket socket_;
  const std::shared_ptr<TlsContext> tls_context_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;
  asio::steady_timer event_;       // Main waits here
  asio::steady_timer room_event_;  // the reader, for room
  asio::steady_timer out_event_;   // the writer, for something to send
  const size_t ahead_max_;
  std::shared_ptr<Outbox> outbox_;
  boost::beast::flat_buffer ahead_;  // read and not yet parsed
  std::optional<TimePoint> write_begun_;
  std::optional<TimePoint> full_since_;  // of the outbox
  int64_t sent_before_full_ = 0;
  bool read_end_ = false, broken_ = false, closed_ = false;
  bool discard_ = false;   // what still comes is of no interest
  bool answered_ = false;  // something was sent: say goodbye properly
  bool unread_ = false;    // the client may still be sending what nobody reads
  bool first_ = true;
  int64_t body_charged_ = 0;
  bool upload_charged_ = false;
};

void Connection::Start() {
  hub_.connections.insert(this);
  hub_.meter.OnConnections(hub_.open.load());
  // Handlers' threads only post: the connection itself is the I/O thread's.
  outbox_ = std::make_shared<Outbox>(limits_.unsent_bytes, [&io = hub_.io, weak = weak_from_this()] {
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->out_event_.cancel();
    });
  });
  SetClientOptions(socket_.native_handle());
  const auto ended = [self = shared_from_this()](const std::exception_ptr& failed) {
    if (failed) PALIMPSEST_LOG(kError, "a connection failed: no memory");
    self->Close();
    self->ReleaseBody();
    self->hub_.connections.erase(self.get());
    self->hub_.meter.OnConnections(self->hub_.open.fetch_sub(1) - 1);
  };
  asio::co_spawn(hub_.io, Main(shared_from_this()), ended);
}

void Connection::Close() {
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
  outbox_->Close();
  event_.cancel();
  room_event_.cancel();
  out_event_.cancel();
}

awaitable<void> Connection::Wait(TimePoint until) {
  error_code ignored;
  event_.expires_at(until);
  co_await event_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

awaitable<size_t> Connection::ReadSome(asio::mutable_buffer into, error_code& error) {
  size_t bytes = 0;
  if (tls_) {
    bytes = co_await tls_->async_read_some(into, asio::redirect_error(asio::use_awaitable, error));
  } else {
    bytes = co_await socket_.async_read_some(into, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return bytes;
}

awaitable<size_t> Connection::WriteSome(asio::const_buffer from, error_code& error) {
  size_t bytes = 0;
  if (tls_) {
    bytes = co_await tls_->async_write_some(from, asio::redirect_error(asio::use_awaitable, error));
  } else {
    bytes = co_await socket_.async_write_some(from, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return bytes;
}

// `self` keeps the connection alive while the coroutine runs; the same below.
awaitable<void> Connection::Main(std::shared_ptr<Connection> self) {
  if (tls_) {
    const bool ready = co_await Handshake();
    if (!ready) co_return;
  }
  asio::co_spawn(hub_.io, Reader(self), asio::detached);
  asio::co_spawn(hub_.io, Writer(self), asio::detached);
  for (bool more = true; more && !closed_;) {
    more = co_await OneRequest();
    ReleaseBody();
    first_ = false;
  }
  if (!closed_ && answered_) co_await Goodbye();
}

awaitable<bool> Connection::Handshake() {
  bool done = false, good = false;
  tls_->async_handshake(asio::ssl::stream_base::server, [&, self = shared_from_this()](error_code error) {
    done = true;
    good = !error;
    Wake();
  });
  const TimePoint end = Now() + seconds(limits_.header_seconds);
  while (!done) {
    if (Now() >= end) Close();
    co_await Wait(closed_ ? TimePoint::max() : end);
  }
  co_return good && !closed_;
}

awaitable<void> Connection::Reader([[maybe_unused]] std::shared_ptr<Connection> self) {
  std::array<char, kReadBytes> piece;
  while (!closed_) {
    if (!discard_ && ahead_.size() >= ahead_max_) {
      error_code ignored;
      room_event_.expires_at(TimePoint::max());
      co_await room_event_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      continue;
    }
    error_code error;
    const asio::mutable_buffer into = asio::buffer(piece);
    const size_t bytes = co_await ReadSome(into, error);
    if (!discard_ && bytes > 0) {
      ahead_.commit(asio::buffer_copy(ahead_.prepare(bytes), asio::buffer(piece.data(), bytes)));
    }
    if (error) {
      read_end_ = true;
      broken_ = broken_ || (error != asio::error::eof && error != asio::ssl::error::stream_truncated);
    }
    Wake();
    if (error) break;
  }
}

awaitable<void> Connection::Writer([[maybe_unused]] std::shared_ptr<Connection> self) {
  while (!closed_) {
    const std::string bytes = outbox_->Take();
    if (bytes.empty()) {
      error_code ignored;
      out_event_.expires_at(TimePoint::max());
      co_await out_event_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      continue;
    }
    for (size_t at = 0; at < bytes.size() && !closed_;) {
      error_code error;
      const asio::const_buffer from(bytes.data() + at, std::min(kWriteBytes, bytes.size() - at));
      write_begun_ = Now();
      const size_t sent = co_await WriteSome(from, error);
      write_begun_.reset();
      if (error) {
        broken_ = true;
        outbox_->Close();
        Wake();
        co_return;
      }
      at += sent;
      outbox_->Sent(sent);
    }
    Wake();
  }
}

RequestParser::State Connection::Feed(RequestParser& parser) {
  size_t used = 0;
  const auto state = parser.Put({static_cast<const char*>(ahead_.data().data()), ahead_.data().size()}, used);
  ahead_.consume(used);
  if (used > 0) room_event_.cancel();
  return state;
}

// quiet_end: the client has gone, or has nothing to ask any more.
awaitable<Refusal> Connection::ReadHead(RequestParser& parser, bool& quiet_end) {
  const TimePoint idle_end = Now() + seconds(first_ ? limits_.header_seconds : limits_.keep_alive_seconds);
  std::optional<TimePoint> head_end;
  for (;;) {
    const RequestParser::State state = Feed(parser);
    if (state == RequestParser::State::kHead) co_return Refusal{};
    if (state == RequestParser::State::kFailed) {
      co_return Refusal{parser.failure().status, parser.failure().message, "", {}};
    }
    if (parser.started() && !head_end) head_end = Now() + seconds(limits_.header_seconds);
    quiet_end = over() || hub_.stop.IsSet() || (hub_.draining.load() && !parser.started());
    if (quiet_end) co_return Refusal{};
    if (ahead_.size() >= ahead_max_) {
      co_return Refusal{
          431,
          fmt::format("the headers are over {} bytes (limits.header_bytes)", limits_.header_bytes),
          "",
          {}};
    }
    const TimePoint end = head_end.value_or(idle_end);
    if (Now() >= end) {
      quiet_end = !parser.started();
      if (!quiet_end) hub_.meter.OnCut("slow headers");
      co_return Refusal{
          408,
          fmt::format("the headers took more than {} s (limits.header_seconds)", limits_.header_seconds),
          "timeout",
          {}};
    }
    co_await Wait(end);
  }
}

// Takes a piece of a body that is held in memory.
absl::Status Connection::Keep(std::string_view piece, Exchange& exchange) {
  const auto bytes = static_cast<int64_t>(piece.size());
  const int64_t bytes_max = std::max(kBodiesBytesMax, limits_.body_bytes);
  if (hub_.body_bytes + bytes > bytes_max) {
    return WithRetryAfter(Error(absl::StatusCode::kUnavailable,
                                "{} bytes of requests are in memory already, at most {} may be (64 MiB, or "
                                "limits.body_bytes where that is more); come again in 1 s",
                                hub_.body_bytes, bytes_max),
                          1);
  }
  hub_.body_bytes += bytes;
  body_charged_ += bytes;
  exchange.request.body.append(piece);
  return absl::OkStatus();
}

void Connection::ReleaseBody() {
  hub_.body_bytes -= std::exchange(body_charged_, 0);
  if (std::exchange(upload_charged_, false)) --hub_.uploads;
}

Refusal TooLarge(int64_t bytes_max, bool on_disk) {
  return {413,
          fmt::format("the body is over {} bytes ({})", bytes_max,
                      on_disk ? "limits.document_bytes" : "limits.body_bytes"),
          "body_too_large",
          {}};
}

awaitable<absl::Status> Connection::OnDisk(std::function<absl::Status()> work) {
  bool done = false;
  absl::Status status;
  asio::post(hub_.disk, [&, self = shared_from_this()] {
    status = work();
    asio::post(hub_.io, [&done, self] {
      done = true;
      self->Wake();
    });
  });
  while (!done) co_await Wait(TimePoint::max());
  co_return status;
}

awaitable<Refusal> Connection::ReadBody(RequestParser& parser, Exchange& exchange, int64_t bytes_max,
                                        bool& quiet_end) {
  BodyPace pace{seconds(limits_.idle_seconds)};
  int64_t received = 0;
  std::string for_disk;
  for (;;) {
    const RequestParser::State state = Feed(parser);
    if (state == RequestParser::State::kFailed) {
      co_return Refusal{parser.failure().status, parser.failure().message, "", {}};
    }
    const bool done = state == RequestParser::State::kDone;
    if (state == RequestParser::State::kBody) {
      pace.Count(parser.body().size());
      received += static_cast<int64_t>(parser.body().size());
      if (received > bytes_max) co_return TooLarge(bytes_max, exchange.upload != nullptr);
      absl::Status kept;
      if (exchange.upload != nullptr) {
        for_disk.append(parser.body());
      } else {
        kept = Keep(parser.body(), exchange);
      }
      if (!kept.ok()) co_return RefusalOf(kept);
    }
    if (exchange.upload != nullptr && (done || for_disk.size() >= kDiskBytes)) {
      std::function<absl::Status()> work = [&] {
        const absl::Status written = exchange.upload->Write(for_disk);
        return written.ok() && done ? exchange.upload->Close() : written;
      };
      const absl::Status written = co_await OnDisk(std::move(work));
      if (!written.ok()) co_return RefusalOf(written);
      for_disk.clear();
      pace.BeginAnew();
    }
    if (done) co_return Refusal{};
    if (state == RequestParser::State::kBody) continue;
    quiet_end = over() || hub_.stop.IsSet();
    if (quiet_end) co_return Refusal{};
    if (ahead_.size() >= ahead_max_) {
      co_return Refusal{
          400,
          fmt::format("a chunk's head is over {} bytes (64 KiB, or limits.header_bytes and 4 KiB "
                      "where that is more); leave out its extensions",
                      ahead_max_),
          "",
          {}};
    }
    if (std::string slow = pace.TooSlow(); !slow.empty()) {
      hub_.meter.OnCut("slow body");
      co_return Refusal{408, std::move(slow), "timeout", {}};
    }
    co_await Wait(pace.next_look());
  }
}

void Connection::Refuse(const Refusal& refusal, const Admitted& admitted, const RequestParser::Head& head,
                        bool close) {
  const bool empty = refusal.status == 204;
  Headers more = refusal.more;
  if (refusal.status == 503) more.emplace("retry-after", "1");
  const std::string body = empty ? "" : ErrorBody(refusal.status, refusal.message, refusal.code);
  std::string answer =
      ResponseHead(refusal.status, empty ? "" : "application/json", more, admitted.request_id, head.http10,
                   close, false, static_cast<int64_t>(body.size()));
  if (!admitted.head_only) answer += body;
  answered_ = true;
  unread_ = unread_ || close;
  outbox_->AppendNow(answer);
  hub_.meter.OnDone({head.method,
                     admitted.route == nullptr ? "none" : std::string_view(admitted.route->pattern),
                     refusal.status, static_cast<int64_t>(answer.size()), 0, admitted.request_id});
}

awaitable<bool> Connection::OneRequest() {
  const auto parser = RequestParser::Create({limits_.header_bytes, limits_.headers});
  bool quiet_end = false;
  Refusal refusal = co_await ReadHead(*parser, quiet_end);
  if (quiet_end) co_return false;
  const RequestParser::Head& head = parser->head();
  Admitted admitted;
  if (refusal.status != 0) {
    Refuse(refusal, admitted, head, true);
    co_return false;
  }
  const TimePoint begun = Now();
  admitted = Admit(hub_.options, hub_.loopback, hub_.router, head);
  refusal = admitted.refusal;
  const bool on_disk = admitted.route != nullptr && admitted.route->body == Route::Body::kFile;
  if (refusal.status == 0 && hub_.draining.load()) {
    refusal = {503, "the server is stopping", "unavailable", {}};
  } else if (refusal.status == 0 && on_disk && hub_.uploads >= kUploadsMax) {
    refusal = {
        503,
        fmt::format("{} uploads are coming in already, as many as may; come again in 1 s", hub_.uploads),
        "unavailable",
        {}};
  }
  if (refusal.status != 0) {
    // What has a body that nobody reads cannot be followed by a request.
    const bool close = head.has_body() || !head.keep_alive || hub_.draining.load();
    Refuse(refusal, admitted, head, close);
    if (!close) co_await Flush();
    co_return !close;
  }

  Exchange::Options options;
  options.outbox = outbox_;
  options.stop = &hub_.stop;
  options.draining = &hub_.draining;
  options.http10 = head.http10;
  options.keep_alive = head.keep_alive;
  options.head_only = admitted.head_only;
  options.route = admitted.route;
  const auto exchange = std::make_shared<Exchange>(options);
  exchange->request = std::move(admitted.request);
  exchange->request.client = client_;
  exchange->grant = std::move(admitted.grant);
  exchange->begun = begun;
  if (on_disk) {
    auto upload = UploadFile::Create(hub_.options.upload_folder);
    if (!upload.ok()) {
      Refuse(RefusalOf(upload.status()), admitted, head, true);
      co_return false;
    }
    exchange->upload = *std::move(upload);
    exchange->request.body_file = exchange->upload->path();
    ++hub_.uploads;
    upload_charged_ = true;
  }
  if (head.wants_continue && head.has_body()) outbox_->AppendNow("HTTP/1.1 100 Continue\r\n\r\n");
  refusal = co_await ReadBody(*parser, *exchange, admitted.body_bytes_max, quiet_end);
  if (quiet_end) co_return false;
  if (refusal.status != 0) {
    Refuse(refusal, admitted, head, true);
    co_return false;
  }
  // The pool keeps the exchange, not the connection, which must end on the I/O thread.
  std::function<void()> work = [exchange, &io = hub_.io, weak = weak_from_this()] {
    exchange->Run();
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->Wake();
    });
  };
  answered_ = true;
  if (!hub_.pool.TryRun(std::move(work))) {
    const bool close = !head.keep_alive || hub_.draining.load();
    Refuse({503,
            fmt::format("no thread is free for the request, at most {} are in work at once (limits.running, "
                        "limits.waiting and 32 more); come again in 1 s",
                        hub_.pool.threads_max()),
            "unavailable",
            {}},
           admitted, head, close);
    if (!close) co_await Flush();
    co_return !close;
  }
  co_await Handle(exchange);
  co_return !exchange->close_after() && !closed_ && !broken_;
}

// A buffer that stays full, and is not taken once over in unsent_seconds: a byte now and then is no progress,
// and would hold the handler, and an answer's memory, for hours.
bool Connection::Drips() {
  if (outbox_->unsent() < limits_.unsent_bytes / 2) {
    full_since_.reset();
    return false;
  }
  if (!full_since_) {
    full_since_ = Now();
    sent_before_full_ = outbox_->sent();
  }
  if (Now() - *full_since_ < seconds(limits_.unsent_seconds)) return false;
  const bool drips = outbox_->sent() - sent_before_full_ < limits_.unsent_bytes;
  full_since_.reset();
  return drips;
}

bool Connection::CutIfStalled() {
  if (closed_) return false;
  const bool takes_nothing = write_begun_ && Now() - *write_begun_ >= seconds(limits_.unsent_seconds);
  if (!Drips() && !takes_nothing) return false;
  hub_.meter.OnCut("slow reader");
  error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);  // the kernel keeps nothing for it either
  Close();
  return true;
}

awaitable<void> Connection::Handle(std::shared_ptr<Exchange> exchange) {
  while (!exchange->finished()) {
    CutIfStalled();
    if (over()) exchange->SetGone();
    if (broken_) outbox_->Close();
    co_await Wait(Now() + kTick);
  }
  co_await Flush();
  const Exchange& done = *exchange;
  hub_.meter.OnDone({done.request.method, done.route()->pattern, done.status(), done.bytes(),
                     Seconds(Now() - done.begun), done.request.request_id});
}

// Until the client has everything, or is cut.
awaitable<void> Connection::Flush() {
  while (!closed_ && !broken_ && outbox_->unsent() > 0) {
    if (!CutIfStalled()) co_await Wait(Now() + kTick);
  }
}

// Closing with unread bytes in the kernel would destroy the answer on its way: so stop sending, and read for
// a moment what the client still has to say.
awaitable<void> Connection::Goodbye() {
  discard_ = true;
  ahead_.consume(ahead_.size());
  room_event_.cancel();
  co_await Flush();
  if (closed_ || broken_) co_return;
  if (tls_) {
    bool done = false;
    tls_->async_shutdown([&, self = shared_from_this()](error_code) {
      done = true;
      Wake();
    });
    const TimePoint end = Now() + kTlsGoodbye;
    while (!done) {
      if (Now() >= end) Close();
      co_await Wait(closed_ ? TimePoint::max() : end);
    }
  }
  error_code ignored;
  if (!closed_) socket_.shutdown(tcp::socket::shutdown_send, ignored);
  const TimePoint end = Now() + kLinger;
  while (unread_ && !over() && !hub_.stop.IsSet() && Now() < end) co_await Wait(end);
}

class AsioConnections final : public Connections {
 public:
  AsioConnections(HttpServer::Options options, bool loopback, Router router)
      : hub_(std::move(options), loopback, std::move(router)) {
    thread_ = std::thread([this] { hub_.io.run(); });
  }
  ~AsioConnections() override { AsioConnections::Stop(); }

  void Adopt(int fd, bool ipv6, std::string client, std::shared_ptr<TlsContext> tls) override {
    hub_.open.fetch_add(1);
    asio::post(hub_.io, [this, fd, ipv6, client = std::move(client), tls = std::move(tls)] {
      tcp::socket socket(hub_.io);
      error_code error;
      socket.assign(ipv6 ? tcp::v6() : tcp::v4(), fd, error);
      if (error || hub_.stop.IsSet()) {
        if (error) ::close(fd);
        hub_.open.fetch_sub(1);
        return;
      }
      std::make_shared<Connection>(hub_, std::move(socket), client, tls)->Start();
    });
  }

  int64_t open() const override { return hub_.open.load(); }
  int64_t in_work() const override { return hub_.pool.in_work(); }

  void BeginDrain() override {
    hub_.draining.store(true);
    asio::post(hub_.io, [this] {
      for (Connection* connection : hub_.connections) connection->Wake();
    });
  }

  void Stop() override {
    if (!thread_.joinable()) return;
    hub_.stop.Set();
    hub_.draining.store(true);
    asio::post(hub_.io, [this] {
      const std::set<Connection*> all = hub_.connections;
      for (Connection* connection : all) connection->Close();
    });
    hub_.pool.Stop();
    work_.reset();  // the I/O thread returns when the last connection has ended, which may wait for the disk
    thread_.join();
    hub_.disk.join();
  }

 private:
  Hub hub_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{hub_.io.get_executor()};
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Connections> Connections::Create(HttpServer::Options options, bool loopback, Router router) {
  return std::make_unique<AsioConnections>(std::move(options), loopback, std::move(router));
}

}  // namespace palimpsest::http
