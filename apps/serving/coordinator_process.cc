#include "apps/serving/coordinator_process.h"

#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "apps/domain_secret.h"
#include "apps/model.h"
#include "apps/serving/worker_process.h"
#include "coordinator/coordinator.h"
#include "coordinator/http/api.h"
#include "coordinator/http/api_keys.h"
#include "coordinator/http/http_server.h"
#include "coordinator/join_service.h"
#include "palimpsest_version.h"
#include "proto/base/log.h"
#include "proto/base/metrics.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

// For clients to be told that their answer was cancelled.
constexpr Duration kGoodbye = std::chrono::seconds(1);

// Uploads are written here before they are documents; what a crash left is nobody's.
absl::StatusOr<std::string> EmptyUploadFolder(const DataFolder& data) {
  const fs::path folder = fs::path(data.path()) / "uploads";
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) fs::create_directory(folder, error);
  if (!error) fs::permissions(folder, fs::perms::owner_all, error);
  if (error) {
    return Error(absl::StatusCode::kPermissionDenied,
                 "data folder: {}: {}; change its owner or use another --data-dir",
                 Quoted(folder.string(), 4096), error.message());
  }
  return folder.string();
}

std::string UrlOf(const std::string& host, int64_t port, bool tls) {
  const bool any = host == "0.0.0.0" || host == "::";
  const std::string name = any ? "127.0.0.1" : host.find(':') != std::string::npos ? "[" + host + "]" : host;
  return fmt::format("http{}://{}:{}", tls ? "s" : "", name, port);
}

class OneCoordinatorProcess final : public CoordinatorProcess {
 public:
  explicit OneCoordinatorProcess(Options options)
      : options_(std::move(options)), metrics_(Metrics::Create()) {}
  ~OneCoordinatorProcess() override { Stop(); }

  absl::Status Start() {
    PALIMPSEST_ASSIGN_OR_RETURN(model_, Model::Open(config()));
    PALIMPSEST_ASSIGN_OR_RETURN(ServedModel served, model_->Served());
    PALIMPSEST_ASSIGN_OR_RETURN(std::shared_ptr<const DataFolder> folder,
                                DataFolder::Open(config().data_dir, options_.owner));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string uploads, EmptyUploadFolder(*folder));
    PALIMPSEST_RETURN_IF_ERROR(StartCoordinator(std::move(served), std::move(folder)));
    PALIMPSEST_RETURN_IF_ERROR(StartHttp(uploads));
    JoinService::Options join{
        .listen = config().cluster.coordinator, .tls = ClusterTlsOf(config()), .on_join = options_.on_join};
    PALIMPSEST_ASSIGN_OR_RETURN(join_, JoinService::Start(*registry_, std::move(join)));
    PALIMPSEST_LOG(kInfo, "coordinator listens api {} admin {} join {}", LogName(url()), LogName(admin_url()),
                   LogName(join_->address()));
    return absl::OkStatus();
  }

  std::string url() const override {
    return UrlOf(config().server.host, api_->port(), !config().server.tls_certificate.empty());
  }
  std::string admin_url() const override { return UrlOf(config().server.admin_host, admin_->port(), false); }
  bool HasWorker() const override { return !registry_->Alive().empty(); }
  void Tick() override {
    if (keys_ != nullptr) keys_->Refresh();
  }

  bool Drain(Duration limit) override {
    // Side by side: connections that are kept alive see their next request refused, new ones are not taken.
    // What is left then is cancelled, and its clients have a moment to be told so.
    bool coordinator_drained = false;
    std::thread coordinator([&] {
      coordinator_drained = coordinator_->Drain(limit);
      coordinator_->Stop();
    });
    const bool http_drained = api_->Drain(limit + kGoodbye);
    coordinator.join();
    return coordinator_drained && http_drained;
  }

  void Stop() override {
    if (coordinator_ != nullptr && api_ != nullptr) {
      // Side by side: an answer that waits for its client to take it ends when the client is cut.
      std::thread coordinator([&] { coordinator_->Stop(); });
      api_->Drain(kGoodbye);
      coordinator.join();
    } else if (coordinator_ != nullptr) {
      coordinator_->Stop();
    }
    if (admin_ != nullptr) admin_->Stop();
    if (join_ != nullptr) join_->Stop();
  }

 private:
  const Config& config() const { return options_.config; }

  absl::Status StartCoordinator(ServedModel served, std::shared_ptr<const DataFolder> folder) {
    registry_ = std::make_shared<Registry>(
        Registry::Identity{.version = PALIMPSEST_VERSION,
                           .cluster_id = config().cluster.id,
                           .model_hash = served.hash,
                           .lease = std::chrono::seconds(config().cluster.lease_seconds)},
        RealClock());
    // Opened now: what is wrong with the folder is said at the start, not to the first client.
    PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<Catalog> catalog, Catalog::Open(std::move(folder)));
    auto opened = std::make_shared<std::unique_ptr<Catalog>>(std::move(catalog));
    PALIMPSEST_ASSIGN_OR_RETURN(std::string secret, DomainSecret(config()));
    PALIMPSEST_ASSIGN_OR_RETURN(
        coordinator_,
        Coordinator::Create({.config = config(),
                             .model = std::move(served),
                             .open_catalog = [opened]() -> absl::StatusOr<std::unique_ptr<Catalog>> {
                               return std::move(*opened);
                             },
                             .registry = registry_,
                             .secret = std::move(secret),
                             .metrics = metrics_.get()}));
    return absl::OkStatus();
  }

  absl::Status StartHttp(const std::string& uploads) {
    const Config::Server& server = config().server;
    if (!server.api_keys_file.empty()) {
      PALIMPSEST_ASSIGN_OR_RETURN(keys_, http::ApiKeys::Load(server.api_keys_file));
    }
    const http::ApiParts parts{
        .coordinator = coordinator_.get(), .metrics = metrics_.get(), .config = config()};
    http::HttpServer::Options api{.name = "api",
                                  .host = server.host,
                                  .port = server.port,
                                  .config = config(),
                                  .keys = keys_.get(),
                                  .upload_folder = uploads,
                                  .metrics = metrics_.get()};
    http::HttpServer::Options admin = api;
    admin.name = "admin";
    admin.host = server.admin_host;
    admin.port = server.admin_port;
    admin.keys = nullptr;
    admin.config.server.tls_certificate = admin.config.server.tls_key = "";
    PALIMPSEST_ASSIGN_OR_RETURN(api_, http::HttpServer::Start(api, http::MakePublicRouter(parts)));
    PALIMPSEST_ASSIGN_OR_RETURN(admin_, http::HttpServer::Start(admin, http::MakeAdminRouter(parts)));
    return absl::OkStatus();
  }

  const Options options_;
  // In the order in which they need each other.
  const std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<Registry> registry_;  // with the coordinator
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<http::ApiKeys> keys_;
  std::unique_ptr<http::HttpServer> api_, admin_;
  std::unique_ptr<JoinService> join_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorProcess>> CoordinatorProcess::Start(Options options) {
  auto process = std::make_unique<OneCoordinatorProcess>(std::move(options));
  PALIMPSEST_RETURN_IF_ERROR(process->Start());
  return process;
}

}  // namespace palimpsest
