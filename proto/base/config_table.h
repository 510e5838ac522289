// The table behind Config: each field once, with how it is read, checked and printed. Only config.cc and
// tests include it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proto/base/config.h"

namespace palimpsest::config_internal {

struct Field {
  std::string key;       // dotted: device.arena_bytes
  std::string variable;  // without its prefix PALIMPSEST_: DEVICE_ARENA_BYTES
  std::string accepts;   // "bytes, 0 or 16MiB to 16TiB"
  std::function<absl::Status(Config&, std::string_view text)> parse;  // the notation only
  std::function<absl::Status(const Config&)> check;                   // the range
  std::function<std::string(const Config&)> print;                    // as a YAML scalar
};

// In the order of Config, the fields of a section together.
const std::vector<Field>& Table();
const Field* FindField(std::string_view key);  // null if there is none

// "device" of device.arena_bytes; "" of model.
std::string SectionOf(const std::string& key);

}  // namespace palimpsest::config_internal
