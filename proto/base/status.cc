#include "proto/base/status.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/cord.h"

namespace palimpsest {
namespace {

constexpr std::string_view kRetryAfter = "palimpsest/retry-after";

}  // namespace

std::optional<int64_t> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(ToAbsl(kRetryAfter));
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return seconds;
}

absl::Status WithRetryAfter(absl::Status status, int64_t seconds) {
  status.SetPayload(ToAbsl(kRetryAfter), absl::Cord(std::to_string(seconds)));
  return status;
}

void CheckFailed(const char* file, int line, const char* condition, std::string_view detail) {
  std::fprintf(stderr, "palimpsest: internal error at %s:%d: %s %.*s\n", file, line, condition,
               static_cast<int>(detail.size()), detail.data());
  std::abort();
}

}  // namespace palimpsest
