#include "kernels/tensor.h"

#include <sys/mman.h>

#include <cstring>

#include "proto/base/host_memory.h"

namespace palimpsest {

void* AllocateAligned(int64_t bytes) {
  constexpr int64_t kHuge = int64_t{2} << 20;
  const int64_t alignment = bytes >= kHuge ? kHuge : 64;
  const int64_t rounded = (bytes + alignment - 1) / alignment * alignment;
  if (rounded == 0) return nullptr;
  void* memory = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(rounded));
  if (memory == nullptr) OutOfHostMemory(rounded);
  if (alignment == kHuge)
    madvise(memory, static_cast<size_t>(rounded), MADV_HUGEPAGE);  // a hint; may be refused
  std::memset(memory, 0, static_cast<size_t>(rounded));
  return memory;
}

}  // namespace palimpsest
