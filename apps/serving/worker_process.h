// A worker as a process: the engine, its gRPC service, and its place in the cluster, until it is stopped.
#pragma once

#include "absl/status/status.h"
#include "proto/base/cancel.h"
#include "proto/base/config.h"

namespace palimpsest {

// Returns OK after a graceful stop (`stop` was set: takes nothing new, finishes what runs within
// server.drain_seconds), or why the worker cannot be: no such model, its address in use, refused by the
// coordinator. Reads the data folder's models and locks nothing: the coordinator holds the folder.
absl::Status RunWorker(const Config& config, const CancelToken& stop);

// cluster.tls_*.
struct ClusterTls;
ClusterTls ClusterTlsOf(const Config& config);

}  // namespace palimpsest
