#include "coordinator/http/http_server.h"

#include <chrono>
#include <mutex>
#include <thread>

#include "coordinator/http/connections.h"
#include "coordinator/http/file_stamp.h"
#include "coordinator/http/listener.h"
#include "coordinator/http/tls.h"
#include "coordinator/http/upload_file.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

// The current certificate; read again when one of its files changes.
class Certificate {
 public:
  static absl::StatusOr<std::unique_ptr<Certificate>> Load(const Config::Server& server) {
    auto made = std::make_unique<Certificate>();
    made->files_ = {server.tls_certificate, server.tls_key};
    made->stamps_ = made->Stamps();
    PALIMPSEST_ASSIGN_OR_RETURN(made->current_, TlsContext::Load(server.tls_certificate, server.tls_key));
    return made;
  }
  std::shared_ptr<TlsContext> current() const { return current_; }

  void Refresh() {
    const auto stamps = Stamps();
    if (stamps == stamps_) return;
    stamps_ = stamps;
    auto loaded = TlsContext::Load(files_.first, files_.second);
    if (loaded.ok()) {
      current_ = *std::move(loaded);
      PALIMPSEST_LOG(kInfo, "certificate {} was read again", LogName(files_.first));
    } else {
      PALIMPSEST_LOG(kWarn, "the certificate changed and is kept as it was: {}", loaded.status());
    }
  }

 private:
  std::pair<FileStamp, FileStamp> Stamps() const { return {StampOf(files_.first), StampOf(files_.second)}; }

  // All of the listener's thread once it runs.
  std::pair<std::string, std::string> files_;
  std::pair<FileStamp, FileStamp> stamps_;
  std::shared_ptr<TlsContext> current_;
};

class Server final : public HttpServer {
 public:
  Server(const Options& options, Router router, std::unique_ptr<Listener> listener,
         std::unique_ptr<Certificate> certificate)
      : name_(options.name),
        connections_max_(options.config.limits.connections),
        keys_(options.keys),
        port_(listener->port()),
        connections_(Connections::Create(options, listener->loopback(), std::move(router))),
        certificate_(std::move(certificate)),
        listener_(std::move(listener)) {
    listener_->Run([this](int fd, bool ipv6, std::string client) { OnAccept(fd, ipv6, std::move(client)); },
                   [this] { OnTick(); });
  }
  ~Server() override { Server::Stop(); }

  int64_t port() const override { return port_; }
  Counts counts() const override { return {connections_->open(), connections_->in_work()}; }

  bool Drain(Duration limit) override {
    const TimePoint end = AddSaturated(std::chrono::steady_clock::now(), limit);
    listener_->Stop();
    connections_->BeginDrain();
    const auto idle = [this] { return connections_->open() == 0 && connections_->in_work() == 0; };
    while (!idle() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const Counts left = counts();
    if (left.connections > 0) {
      PALIMPSEST_LOG(kWarn, "{} closes connections {} requests in work {} after {:.0f} s", LogName(name_),
                     left.connections, left.in_work, Seconds(limit));
    }
    const bool all = idle();
    Stop();
    return all;
  }

  void Stop() override {
    std::lock_guard<std::mutex> lock(stop_mu_);
    listener_->Stop();
    connections_->Stop();
  }

 private:
  void OnAccept(int fd, bool ipv6, std::string client) {
    if (connections_->open() >= connections_max_) return TurnAway(fd, connections_max_);
    connections_->Adopt(fd, ipv6, std::move(client),
                        certificate_ == nullptr ? nullptr : certificate_->current());
  }

  void OnTick() {
    if (keys_ != nullptr) keys_->Refresh();
    if (certificate_ != nullptr) certificate_->Refresh();
  }

  const std::string name_;
  const int64_t connections_max_;
  ApiKeys* const keys_;
  const int64_t port_;
  const std::unique_ptr<Connections> connections_;
  const std::unique_ptr<Certificate> certificate_;
  const std::unique_ptr<Listener> listener_;  // its thread uses all above
  std::mutex stop_mu_;                        // one Stop at a time
};

absl::Status CheckExposure(const HttpServer::Options& options, const Listener& listener,
                           const std::string& setting) {
  if (listener.loopback() || options.keys != nullptr || options.config.server.insecure)
    return absl::OkStatus();
  return InvalidArgument(
      "{} {} is reached from other machines and asks for no key: {}, or listen on 127.0.0.1, or allow it "
      "with "
      "server.insecure",
      setting, Quoted(options.host),
      options.name == "admin" ? "put a proxy before it" : "set server.api_keys_file");
}

bool HasUploads(const Router& router) {
  for (const Route& route : router.routes()) {
    if (route.body == Route::Body::kFile) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options, Router router) {
  const std::string prefix = options.name == "admin" ? "server.admin_" : "server.";
  std::unique_ptr<Certificate> certificate;
  const Config::Server& server = options.config.server;
  if (options.tls && !(server.tls_certificate.empty() && server.tls_key.empty())) {
    PALIMPSEST_ASSIGN_OR_RETURN(certificate, Certificate::Load(server));
  }
  if (HasUploads(router)) PALIMPSEST_RETURN_IF_ERROR(UploadFile::PrepareFolder(options.upload_folder));
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener,
                              Listener::Open(options.host, options.port, prefix + "host", prefix + "port"));
  PALIMPSEST_RETURN_IF_ERROR(CheckExposure(options, *listener, prefix + "host"));
  PALIMPSEST_LOG(kInfo, "{} listens on {} port {} {}", LogName(options.name), LogName(options.host),
                 listener->port(), LogName(certificate == nullptr ? "http" : "https"));
  return std::unique_ptr<HttpServer>(
      std::make_unique<Server>(options, std::move(router), std::move(listener), std::move(certificate)));
}

}  // namespace palimpsest::http
