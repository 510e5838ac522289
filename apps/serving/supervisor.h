// Keeps worker processes running: starts them, starts those again that die, and ends them with this process.
//
// Restart: at once. A worker that died before it joined is started again after 0, 0.25, 0.5, ... s;
//          kQuickDeathsMax such deaths in a row end it all (Failed), since a sixth start would not help.
//          One that had joined and ended by itself within seconds waits up to 5 s; being killed (SIGKILL)
//          counts as somebody else's doing.
// Child  : a process group of its own, so that Ctrl-C reaches it through us; killed by the kernel when we
//          die, however we die; stdin is empty, stdout goes to stderr; no descriptor of ours but these.
// Errors : Failed: FailedPrecondition naming the worker, how it ended, and where it said why.
// Threads: any thread. One thread for each worker, which is its parent for the kernel.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/clock.h"

namespace palimpsest {

inline constexpr int kQuickDeathsMax = 5;

struct WorkerCommand {
  std::string program;                   // its path
  std::vector<std::string> arguments;    // with the name it goes by, first
  std::vector<std::string> environment;  // "NAME=value", all of it
  std::vector<int> cpus;                 // that it may use; empty: those of this process
};

class Supervisor {
 public:
  static absl::StatusOr<std::unique_ptr<Supervisor>> Start(std::vector<WorkerCommand> commands);
  virtual ~Supervisor() = default;  // Stop(0)

  // This process has joined the coordinator.
  virtual void Joined(pid_t process) = 0;
  // Set once workers cannot be kept running.
  virtual std::optional<absl::Status> Failed() const = 0;
  virtual std::vector<pid_t> processes() const = 0;  // 0: between two starts
  // SIGTERM, and SIGKILL to those that are left after `limit`: true if there were none. Idempotent.
  virtual bool Stop(Duration limit) = 0;
};

// The CPUs that this process may use, and `workers` shares of them, each of neighbours; more workers than
// CPUs share.
std::vector<int> AllowedCpus();
std::vector<std::vector<int>> SplitCpus(const std::vector<int>& cpus, int64_t workers);

}  // namespace palimpsest
