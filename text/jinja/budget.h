// What one render may cost. Every loop of the engine charges here, so that no template can hang or exhaust a
// worker.
//
// Threads: one render owns one Budget.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "proto/base/status.h"

namespace palimpsest::jinja {

inline constexpr int64_t kSourceBytesMax = 256 << 10;
inline constexpr int kNestingMax = 64;       // of statements, of expressions, of lists in lists
inline constexpr int kRenderDepthMax = 400;  // statements, expressions and macro calls on the native stack
inline constexpr int64_t kStepsMax = 1'000'000;  // statements, expressions, elements, and pages of text read
inline constexpr int64_t kTextBytesMax = int64_t{64} << 20;   // the output, and any one string
inline constexpr int64_t kWorkBytesMax = int64_t{512} << 20;  // all strings and lists made, kept or not
inline constexpr int64_t kRangeMax = 100'000;                 // elements of range(), as in Jinja's sandbox
inline constexpr int64_t kBytesPerStep = 4096;                // reading this much text is one step

class Budget {
 public:
  absl::Status Steps(int64_t count) {
    steps_left_ -= count;
    if (steps_left_ >= 0) return absl::OkStatus();
    return ResourceError("steps", kStepsMax);
  }
  // `bytes` of text are searched, compared or copied.
  absl::Status Read(int64_t bytes) { return Steps(bytes / kBytesPerStep); }
  // `needle_bytes` are looked for in `bytes`: long needles cost more, for the search may compare them at
  // every place.
  absl::Status Search(int64_t bytes, int64_t needle_bytes) {
    return Steps(bytes / kBytesPerStep * (1 + needle_bytes / 64));
  }
  // A string of `total` bytes comes to be, `added` of them new.
  absl::Status Write(int64_t total, int64_t added) {
    if (total > kTextBytesMax) return ResourceError("bytes in one text", kTextBytesMax);
    work_left_ -= added;
    if (work_left_ >= 0) return Read(added);
    return ResourceError("bytes of work", kWorkBytesMax);
  }
  absl::Status Write(int64_t bytes) { return Write(bytes, bytes); }
  // A list of `count` elements comes to be.
  absl::Status Elements(int64_t count) {
    PALIMPSEST_RETURN_IF_ERROR(Steps(count));
    work_left_ -= count * 32;  // about one value
    if (work_left_ >= 0) return absl::OkStatus();
    return ResourceError("bytes of work", kWorkBytesMax);
  }

 private:
  static absl::Status ResourceError(const char* what, int64_t limit) {
    return InvalidArgument("rendering takes more than {} {}; shorten the messages or the template", limit,
                           what);
  }

  int64_t steps_left_ = kStepsMax;
  int64_t work_left_ = kWorkBytesMax;
};

}  // namespace palimpsest::jinja
