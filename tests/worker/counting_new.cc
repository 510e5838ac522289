// Apart from its users, so that the compiler sees no pair of new and delete through it.
#include "tests/worker/counting_new.h"

#include <cstdlib>
#include <new>

namespace palimpsest::testing {

std::atomic<int64_t> allocations{0}, frees{0};

namespace {

void* Counted(void* memory) {
  if (memory == nullptr) std::abort();
  ++allocations;
  return memory;
}
void Free(void* memory) {
  if (memory != nullptr) ++frees;
  std::free(memory);
}

}  // namespace
}  // namespace palimpsest::testing

using palimpsest::testing::Counted;
using palimpsest::testing::Free;

void* operator new(size_t size) { return Counted(std::malloc(size > 0 ? size : 1)); }
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t unit = static_cast<size_t>(alignment);
  return Counted(std::aligned_alloc(unit, (size + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { Free(memory); }
