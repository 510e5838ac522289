#include "apps/serving/supervisor.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>

#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr Duration kSoon = std::chrono::seconds(5);  // a life shorter than this is a failure to live
constexpr Duration kBackoffMax = std::chrono::seconds(5), kBackoffStep = std::chrono::milliseconds(250);
constexpr int kExecFailed = 127;

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// All that the child needs, made before the fork: between fork and exec it may only call what is safe in a
// signal handler.
struct Prepared {
  explicit Prepared(const WorkerCommand& command)
      : program(command.program), arguments(command.arguments), environment(command.environment) {
    argv = Pointers(arguments);
    envp = Pointers(environment);
    CPU_ZERO(&cpus);
    for (const int cpu : command.cpus) CPU_SET(cpu, &cpus);
    set_cpus = !command.cpus.empty();
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  const std::string program;
  std::vector<std::string> arguments, environment;
  std::vector<char*> argv, envp;
  cpu_set_t cpus;
  bool set_cpus;
  const pid_t parent = ::getpid();
};

[[noreturn]] void BecomeWorker(Prepared& prepared) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != prepared.parent) ::_exit(kExecFailed);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) ::signal(signal, SIG_DFL);
  const int empty = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (empty >= 0) ::dup2(empty, STDIN_FILENO);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  // Libraries open descriptors without O_CLOEXEC: a worker that holds a listener's would keep its port in
  // use.
  if (::close_range(STDERR_FILENO + 1, ~0U, 0) != 0) {
    for (int fd = STDERR_FILENO + 1; fd < 65536; ++fd) ::close(fd);
  }
  if (prepared.set_cpus) ::sched_setaffinity(0, sizeof prepared.cpus, &prepared.cpus);
  ::execve(prepared.program.c_str(), prepared.argv.data(), prepared.envp.data());
  ::_exit(kExecFailed);
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

class ProcessSupervisor final : public Supervisor {
 public:
  explicit ProcessSupervisor(std::vector<WorkerCommand> commands) : commands_(std::move(commands)) {
    slots_.resize(commands_.size());
    for (size_t i = 0; i < slots_.size(); ++i) threads_.emplace_back([this, i] { Keep(i); });
  }
  ~ProcessSupervisor() override { Stop(Duration::zero()); }

  void Joined(pid_t process) override {
    const std::lock_guard lock(mu_);
    for (Slot& slot : slots_) {
      if (slot.process == process) slot.joined = true;
    }
  }
  std::optional<absl::Status> Failed() const override {
    const std::lock_guard lock(mu_);
    return failed_;
  }
  std::vector<pid_t> processes() const override {
    const std::lock_guard lock(mu_);
    std::vector<pid_t> processes;
    processes.reserve(slots_.size());
    for (const Slot& slot : slots_) processes.push_back(slot.process);
    return processes;
  }

  bool Stop(Duration limit) override {
    std::unique_lock lock(mu_);
    stopping_ = true;
    SignalAll(SIGTERM);
    changed_.notify_all();
    const auto all_ended = [this] {
      return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.ended; });
    };
    const bool in_time = changed_.wait_for(lock, limit, all_ended);
    SignalAll(SIGKILL);
    lock.unlock();
    const std::lock_guard join_lock(join_mu_);
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
    return in_time;
  }

 private:
  struct Slot {
    pid_t process = 0;    // 0: between two starts
    bool joined = false;  // that process
    bool ended = false;   // its thread is done with it
    int deaths = 0;       // in a row: quick ones
  };

  // REQUIRES: mu_, under which processes are reaped too, so that no number is another process's by now.
  void SignalAll(int signal) {
    for (const Slot& slot : slots_) {
      if (slot.process != 0) ::kill(slot.process, signal);
    }
  }

  void Keep(size_t index) {
    Prepared prepared(commands_[index]);
    while (Spawn(index, prepared)) {
      const TimePoint started = RealClock().Now();
      const int status = Reap(index);
      if (!AfterDeath(index, status, RealClock().Now() - started)) break;
    }
    {
      const std::lock_guard lock(mu_);
      slots_[index].ended = true;
    }
    changed_.notify_all();
  }

  bool Spawn(size_t index, Prepared& prepared) {
    const std::lock_guard lock(mu_);
    if (stopping_ || failed_.has_value()) return false;
    const pid_t process = ::fork();
    if (process == 0) BecomeWorker(prepared);
    if (process < 0) {
      failed_ = Error(absl::StatusCode::kUnavailable, "worker {} cannot be started: {}", index,
                      std::generic_category().message(errno));
      return false;
    }
    slots_[index].process = process;
    slots_[index].joined = false;
    PALIMPSEST_LOG(kInfo, "worker started number {} process {}", index, process);
    return true;
  }

  // How it ended. It stays a zombie until the lock is held.
  int Reap(size_t index) {
    pid_t process;
    {
      const std::lock_guard lock(mu_);
      process = slots_[index].process;
    }
    siginfo_t info;
    while (::waitid(P_PID, static_cast<id_t>(process), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    int status = 0;
    const std::lock_guard lock(mu_);
    ::waitpid(process, &status, 0);
    slots_[index].process = 0;
    return status;
  }

  // Waits as long as another start should; false: there is to be none.
  bool AfterDeath(size_t index, int status, Duration lived) {
    std::unique_lock lock(mu_);
    if (stopping_) return false;
    Slot& slot = slots_[index];
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    const bool quick = !slot.joined || (lived < kSoon && !killed);
    slot.deaths = quick ? slot.deaths + 1 : 0;
    PALIMPSEST_LOG(kWarn, "worker died number {} ended {} seconds {:.1f} in_a_row {}", index,
                   LogName(HowItEnded(status)), Seconds(lived), slot.deaths);
    if (!slot.joined && slot.deaths >= kQuickDeathsMax) {
      failed_ = FailedPrecondition(
          "worker {} died {} times in a row before it was ready, the last time with {}; it said "
          "why above, and `palimpsest worker` with the same settings shows it alone",
          index, slot.deaths, HowItEnded(status));
      return false;
    }
    const Duration wait =
        slot.deaths < 2
            ? Duration::zero()
            : std::min<Duration>(kBackoffStep * (1 << std::min(slot.deaths - 2, 10)), kBackoffMax);
    changed_.wait_for(lock, wait, [this] { return stopping_; });
    return true;
  }

  const std::vector<WorkerCommand> commands_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;  // guarded by mu_, as below
  std::optional<absl::Status> failed_;
  bool stopping_ = false;
  std::mutex join_mu_;  // who waits for the threads
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Start(std::vector<WorkerCommand> commands) {
  for (const WorkerCommand& command : commands) {
    if (::access(command.program.c_str(), X_OK) != 0) {
      return FailedPrecondition("{}: cannot be run: {}", command.program,
                                std::generic_category().message(errno));
    }
  }
  return std::make_unique<ProcessSupervisor>(std::move(commands));
}

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<std::vector<int>> SplitCpus(const std::vector<int>& cpus, int64_t workers) {
  std::vector<std::vector<int>> shares(static_cast<size_t>(workers));
  const auto count = static_cast<int64_t>(cpus.size());
  for (int64_t i = 0; i < workers && count > 0; ++i) {
    const int64_t first = i * count / workers, last = std::max((i + 1) * count / workers, first + 1);
    shares[static_cast<size_t>(i)] = {cpus.begin() + first, cpus.begin() + last};
  }
  return shares;
}

}  // namespace palimpsest
