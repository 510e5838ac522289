#include "proto/base/status.h"

#include <cstdio>
#include <cstdlib>

namespace palimpsest {

void CheckFailed(const char* file, int line, const char* condition, std::string_view detail) {
  std::fprintf(stderr, "palimpsest: internal error at %s:%d: %s %.*s\n", file, line, condition,
               static_cast<int>(detail.size()), detail.data());
  std::abort();
}

}  // namespace palimpsest
