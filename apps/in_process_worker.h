// A worker of this process, joined to a coordinator of this process: no wire between them.
#pragma once

#include "absl/status/status.h"
#include "coordinator/registry.h"
#include "worker/worker_host.h"

namespace palimpsest {

// `host` must outlive the registry's use of it.
absl::Status JoinInProcess(WorkerHost& host, Registry& registry);

}  // namespace palimpsest
