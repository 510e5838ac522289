#include "apps/serving/serving.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "apps/serving/coordinator_process.h"
#include "apps/serving/notify.h"
#include "apps/serving/supervisor.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr auto kLook = std::chrono::milliseconds(20);
constexpr auto kTick = std::chrono::seconds(1);
constexpr auto kWorkerStopLimit = std::chrono::seconds(3);  // after the drain nothing runs any more
constexpr size_t kSocketPathBytesMax = 100;

// A folder for the sockets of one `serve`: for its owner only, removed with it.
class PrivateFolder {
 public:
  static absl::StatusOr<std::unique_ptr<PrivateFolder>> Make(const std::string& parent) {
    constexpr std::string_view kName = "/palimpsest-XXXXXX", kLongestSocket = "/worker-63.sock";
    const bool fits =
        !parent.empty() && parent.size() + kName.size() + kLongestSocket.size() <= kSocketPathBytesMax;
    std::string path = (fits ? parent : "/tmp") + std::string(kName);
    if (::mkdtemp(path.data()) == nullptr) {
      return Error(absl::StatusCode::kUnavailable,
                   "cannot make a folder {} for the workers' sockets: {}; set XDG_RUNTIME_DIR",
                   Quoted(path, 256), std::generic_category().message(errno));
    }
    return std::unique_ptr<PrivateFolder>(new PrivateFolder(path));
  }
  ~PrivateFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  std::string File(std::string_view name) const { return fmt::format("{}/{}", path_, name); }
  std::string Socket(std::string_view name) const { return "unix:" + File(name); }

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

absl::StatusOr<std::string> RandomClusterId() {
  uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    return Internal("no random numbers: {}", std::generic_category().message(errno));
  }
  return fmt::format("serve-{:016x}", bits);
}

// The workers get this process's settings as a file: whatever they came from, they are the same for all.
absl::Status WriteSettings(const Config& config, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  file << PrintEffective(config);
  file.close();
  return file ? absl::OkStatus() : ResourceExhausted("cannot write {}: is the disk full?", Quoted(path, 256));
}

absl::StatusOr<std::vector<WorkerCommand>> WorkerCommands(const ServingOptions& options, const Config& config,
                                                          const PrivateFolder& folder) {
  Config of_workers = config;
  const std::vector<int> cpus = AllowedCpus();
  const int64_t workers = config.server.workers;
  const bool shared = config.threads.count != 0 || static_cast<int64_t>(cpus.size()) < workers;
  if (workers > 1 && shared) of_workers.threads.pin = false;  // they would pin to the same cores
  const std::string settings = folder.File("worker.yaml");
  PALIMPSEST_RETURN_IF_ERROR(WriteSettings(of_workers, settings));
  const auto shares = SplitCpus(cpus, workers);
  std::vector<WorkerCommand> commands;
  for (int64_t i = 0; i < workers; ++i) {
    WorkerCommand command;
    // This very program, even if an update has replaced its file by now.
    command.program = "/proc/self/exe";
    command.arguments = {"palimpsest", "worker",           "--config",
                         settings,     "--cluster-listen", folder.Socket(fmt::format("worker-{}.sock", i))};
    for (const auto& [name, value] : options.environment) {
      if (!name.starts_with("PALIMPSEST_") && name != "NOTIFY_SOCKET")
        command.environment.push_back(fmt::format("{}={}", name, value));
    }
    if (workers > 1 && !shared) command.cpus = shares[static_cast<size_t>(i)];
    commands.push_back(std::move(command));
  }
  return commands;
}

void LogSettings(const Config& config) {
  const std::string all = PrintEffective(config);
  std::string section;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = std::string_view(all).substr(at, end - at);
    at = end + 1;
    if (!line.starts_with(' ')) section = line.substr(0, line.find(':'));
    const size_t comment = line.find("  # ");
    if (comment == std::string_view::npos) continue;  // a section
    const std::string setting =
        fmt::format("{}{}", line.starts_with(' ') ? section + "." : "",
                    line.substr(line.find_first_not_of(' '), comment - line.find_first_not_of(' ')));
    if (line.ends_with("; default")) {
      PALIMPSEST_LOG(kDebug, "setting {} default true", LogName(setting));
    } else {
      PALIMPSEST_LOG(kInfo, "setting {}", LogName(setting));
    }
  }
}

void Notify(const ServingOptions& options, std::string_view state) {
  const absl::Status sent = NotifyServiceManager(options.notify_socket, state);
  if (!sent.ok()) PALIMPSEST_LOG(kWarn, "the service manager was not told status {}", sent);
}

absl::Status Ready(const ServingOptions& options, const CoordinatorProcess& process, TimePoint started) {
  PALIMPSEST_LOG(kInfo, "ready api {} admin {} seconds {:.1f}", LogName(process.url()),
                 LogName(process.admin_url()), Seconds(RealClock().Now() - started));
  Notify(options, "READY=1");
  return options.on_ready ? options.on_ready(process.url(), process.admin_url()) : absl::OkStatus();
}

// Until the stop, or until workers cannot be kept running; `supervisor` may be null.
absl::Status Run(const ServingOptions& options, CoordinatorProcess& process, const Supervisor* supervisor,
                 TimePoint started) {
  bool ready = false;
  TimePoint next_tick = started;
  while (!options.stop->IsSet()) {
    if (supervisor != nullptr) {
      if (std::optional<absl::Status> failed = supervisor->Failed()) return *failed;
    }
    if (!ready && process.HasWorker()) {
      ready = true;
      PALIMPSEST_RETURN_IF_ERROR(Ready(options, process, started));
    }
    if (RealClock().Now() >= next_tick) {
      process.Tick();
      next_tick = RealClock().Now() + kTick;
    }
    std::this_thread::sleep_for(kLook);
  }
  PALIMPSEST_LOG(kInfo, "stopping drain_seconds {}", options.config.server.drain_seconds);
  Notify(options, "STOPPING=1");
  const bool all = process.Drain(std::chrono::seconds(options.config.server.drain_seconds));
  PALIMPSEST_LOG(kInfo, "stopped all_finished {}", all);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCoordinator(const ServingOptions& options) {
  const TimePoint started = RealClock().Now();
  LogSettings(options.config);
  PALIMPSEST_ASSIGN_OR_RETURN(
      const auto process, CoordinatorProcess::Start(
                              {.config = options.config, .owner = "palimpsest coordinator", .on_join = {}}));
  absl::Status status = Run(options, *process, nullptr, started);
  process->Stop();
  return status;
}

absl::Status RunServe(const ServingOptions& options) {
  const TimePoint started = RealClock().Now();
  LogSettings(options.config);
  PALIMPSEST_ASSIGN_OR_RETURN(const auto folder, PrivateFolder::Make(options.runtime_folder));
  Config config = options.config;
  PALIMPSEST_ASSIGN_OR_RETURN(config.cluster.id, RandomClusterId());
  config.cluster.coordinator = folder->Socket("join.sock");
  config.cluster.tls_certificate = config.cluster.tls_key = config.cluster.tls_ca = "";
  // Workers join before the supervisor is there to be told: the process that starts them comes first.
  std::mutex mu;
  Supervisor* told = nullptr;  // guarded by mu
  const auto on_join = [&](const proto::Hello& hello) {
    const std::lock_guard lock(mu);
    if (told != nullptr) told->Joined(static_cast<pid_t>(hello.process_id()));
  };
  PALIMPSEST_ASSIGN_OR_RETURN(
      const auto process,
      CoordinatorProcess::Start({.config = config, .owner = "palimpsest serve", .on_join = on_join}));
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<WorkerCommand> commands, WorkerCommands(options, config, *folder));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto supervisor, Supervisor::Start(std::move(commands)));
  {
    const std::lock_guard lock(mu);
    told = supervisor.get();
  }
  absl::Status status = Run(options, *process, supervisor.get(), started);
  supervisor->Stop(kWorkerStopLimit);
  process->Stop();  // nobody is told of a Join after this
  return status;
}

}  // namespace palimpsest
