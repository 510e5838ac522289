#include "proto/base/cores.h"

#include <pthread.h>
#include <sched.h>

#include <span>

namespace palimpsest {
namespace {

std::vector<int> AllowedCores() {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

void RunOn(std::span<const int> cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

const std::vector<int>& ProcessCores() {
  static const auto* const cores = new std::vector<int>(AllowedCores());
  return *cores;
}

void RunOnCore(int core) { RunOn({&core, 1}); }
void RunOnAllCores() { RunOn(ProcessCores()); }

}  // namespace palimpsest
