// A worker process to be killed: serves ScriptedHost at the address given, and says "ready" once it does.
#include <unistd.h>

#include <cstdio>

#include "tests/wire/scripted_host.h"
#include "worker/worker_service.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  palimpsest::testing::ScriptedHost host;
  const auto service = palimpsest::WorkerService::Start(host, {.listen = argv[1], .tls = {}});
  if (!service.ok()) return 1;
  (*service)->SetIncarnation(1);
  std::puts("ready");
  std::fflush(stdout);
  ::pause();
}
