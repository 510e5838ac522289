// The command `palimpsest`.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>

#include "apps/palimpsest/command.h"
#include "proto/base/cancel.h"
#include "proto/base/open_files.h"

namespace {

palimpsest::CancelToken interrupted;

extern "C" void OnInterrupt(int) { interrupted.Set(); }

// The first signal asks for a clean end; the second one ends the process.
void HandleSignals() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

// A group of blocks takes a few MiB and lives for a moment. By default glibc gives memory of that size back
// to the kernel each time, and page faults were a quarter of what reading the SSD tier cost.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

// In the middle of a step there is nothing to give back, and what is stored is safe: a supervisor starts
// the process anew, and its requests are resumed. Allocates nothing.
void OnOutOfMemory() {
  static constexpr char kText[] =
      "palimpsest: host memory is used up: lower host.store_bytes, host.index_bytes, host.view_bytes or "
      "device.arena_bytes, or give the process more\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  _exit(1);
}

// Also of what a library throws on a thread of its own, such as that it got no other thread.
void OnUncaught() {
  try {
    if (std::current_exception() != nullptr) throw;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "palimpsest: out of what a library needs: %s\n", error.what());
    _exit(1);
  } catch (...) {
  }
  std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);  // memory holds users' text: none of it goes into a core file (I-18)
  palimpsest::RaiseOpenFilesLimit();
  HandleSignals();
  KeepFreedMemory();
  std::set_new_handler(OnOutOfMemory);
  std::set_terminate(OnUncaught);
  return palimpsest::RunCommandLine(argc, argv, interrupted);
}
