#include "proto/base/sizes.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <span>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

struct Unit {
  std::string_view suffix;
  int shift;  // the unit is 2^shift
};

constexpr Unit kByteUnits[] = {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}};
constexpr Unit kCountUnits[] = {{"M", 20}, {"K", 10}, {"", 0}};

constexpr std::string_view kByteHelp =
    "a whole number of bytes, or one with KiB, MiB, GiB or TiB such as 4GiB";
constexpr std::string_view kCountHelp = "a whole number, or one with K or M (1024-based) such as 128K";

absl::StatusOr<int64_t> ParseScaled(std::string_view text, std::span<const Unit> units,
                                    std::string_view help) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return InvalidArgument("{} is out of range", Quoted(text));
  if (error != std::errc() || number < 0 || text.front() == '-') {
    return InvalidArgument("{} is not {}", Quoted(text), help);
  }
  const std::string_view suffix = text.substr(end - text.data());
  for (const Unit& unit : units) {
    if (suffix != unit.suffix) continue;
    if (number > std::numeric_limits<int64_t>::max() >> unit.shift) {
      return InvalidArgument("{} is out of range", Quoted(text));
    }
    return number << unit.shift;
  }
  return InvalidArgument("{} is not {}", Quoted(text), help);
}

std::string FormatScaled(int64_t number, std::span<const Unit> units) {
  PALIMPSEST_CHECK(number >= 0, "a size or count of {}", number);
  for (const Unit& unit : units) {
    const int64_t scaled = number >> unit.shift;
    if (scaled > 0 && scaled << unit.shift == number) return fmt::format("{}{}", scaled, unit.suffix);
  }
  return "0";
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(std::string_view text) { return ParseScaled(text, kByteUnits, kByteHelp); }
absl::StatusOr<int64_t> ParseCount(std::string_view text) {
  return ParseScaled(text, kCountUnits, kCountHelp);
}

absl::StatusOr<int64_t> ParseInteger(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return InvalidArgument("{} is out of range", Quoted(text));
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("{} is not a whole number", Quoted(text));
  }
  return number;
}

absl::StatusOr<double> ParseReal(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return InvalidArgument("{} is out of range", Quoted(text));
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) {
    return InvalidArgument("{} is not a number such as 0.7", Quoted(text));
  }
  return number;
}

std::string FormatBytes(int64_t bytes) { return FormatScaled(bytes, kByteUnits); }
std::string FormatCount(int64_t count) { return FormatScaled(count, kCountUnits); }

std::string ApproximateBytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  // 999.5 rounds to four digits, so the next unit begins there and not at 1024.
  while (std::abs(bytes) >= 999.5 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} B", bytes);
  const int decimals = std::abs(bytes) < 9.995 ? 2 : std::abs(bytes) < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", bytes, decimals, kUnits[unit]);
}

}  // namespace palimpsest
