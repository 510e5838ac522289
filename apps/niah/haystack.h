// Text to hide needles in, of any length, as pieces between which a needle may stand.
//
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

class Haystack {
 public:
  virtual ~Haystack() = default;
  // Where a text may begin; different starts give different texts. At least 1.
  virtual uint64_t starts() const = 0;
  // How many there are before the text repeats itself; nullopt: it is nothing but repetition.
  virtual std::optional<int64_t> units() const = 0;
  virtual std::string_view name() const = 0;  // of the file, for errors
  // The `units` units (what a length is made of: short sentences, or words) from start `start`, over and over
  // if there are fewer: whole sentences or lines, the last one perhaps shorter.
  virtual std::vector<std::string> Pieces(uint64_t start, int64_t units) const = 0;
  virtual std::string_view separator() const = 0;  // between pieces
};

// The benchmark's noise: five short sentences a line. Units: sentences; pieces: lines.
std::unique_ptr<Haystack> MakeNoiseHaystack();

// Prose with single spaces between its words. Units: words; pieces: sentences. InvalidArgument: not UTF-8, or
// fewer than ten sentences; names the file.
absl::StatusOr<std::unique_ptr<Haystack>> MakeProseHaystack(std::string_view text, std::string_view name);

}  // namespace palimpsest
