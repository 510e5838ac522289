#include "proto/base/host_memory.h"

#include <cstdlib>
#include <new>

#include "proto/base/status.h"

namespace palimpsest {

void OutOfHostMemory(int64_t bytes) {
  if (const std::new_handler handler = std::get_new_handler()) handler();
  PALIMPSEST_CHECK(false, "out of host memory: {} bytes asked for", bytes);
  std::abort();
}

}  // namespace palimpsest
