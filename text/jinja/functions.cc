#include "text/jinja/functions.h"

#include <ctime>

#include "proto/base/status.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {

absl::StatusOr<Value> MakeRange(const Arguments& arguments, Budget* budget) {
  if (arguments.positional.empty() || arguments.positional.size() > 3 || !arguments.named.empty()) {
    return InvalidArgument("range takes one to three integers");
  }
  int64_t bounds[3] = {0, 0, 1};  // start, stop, step
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    const size_t slot = arguments.positional.size() == 1 ? 1 : i;
    PALIMPSEST_ASSIGN_OR_RETURN(bounds[slot],
                                IntegerArgument(&arguments.positional[i], "an argument of range", 0));
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) return InvalidArgument("range: the step is 0");
  // In 128 bits, for the distance of two int64 may not fit one.
  const __int128 distance =
      step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const __int128 stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  const __int128 count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (count > kRangeMax) return InvalidArgument("range has more than {} elements", kRangeMax);
  std::vector<Value> items;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) items.emplace_back(start + i * step);
  return MakeSequence(Sequence::Kind::kRange, std::move(items), budget);
}

absl::StatusOr<Value> FormatTime(const Arguments& arguments, std::chrono::system_clock::time_point now,
                                 Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("strftime_now", arguments, {"format"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string format,
                              TextArgument(bound[0], "the format of strftime_now", ""));
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm utc{};
  if (gmtime_r(&seconds, &utc) == nullptr) return InvalidArgument("strftime_now: the clock is out of range");
  static constexpr std::string_view kKnown = "aAbBcdDeFHIjmMpSTuUwWxXyY%";
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    const bool unpadded = i + 1 < format.size() && format[i + 1] == '-';  // "%-d": without the leading zero
    i += unpadded ? 2 : 1;
    if (i >= format.size() || kKnown.find(format[i]) == std::string_view::npos) {
      return InvalidArgument("strftime_now: only %{} are supported", kKnown);
    }
    const std::string one = unpadded ? std::string{'%', '-', format[i]} : std::string{'%', format[i]};
    char text[128];
    out.append(text, std::strftime(text, sizeof text, one.c_str(), &utc));
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(out.size())));
  return Value(std::move(out));
}

}  // namespace palimpsest::jinja
