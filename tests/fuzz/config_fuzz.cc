// YAML text -> Config: no text crashes, and what is accepted is valid and survives being printed and read
// again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/base/config.h"
#include "proto/base/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using palimpsest::Config;
  static const auto* const inputs =
      new palimpsest::ConfigInputs{.file = "", .environment = {{"HOME", "/home/ada"}}, .flags = {}};
  const std::string_view yaml(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<Config> config = palimpsest::ParseConfig(yaml, "fuzz.yaml", *inputs);
  if (!config.ok()) {
    const std::string message = palimpsest::Message(config.status());
    PALIMPSEST_CHECK(!message.empty() && message.find('\n') == std::string::npos, "an error of {} bytes",
                     message.size());
    return 0;
  }
  PALIMPSEST_CHECK(palimpsest::ValidateConfig(*config).ok());
  absl::StatusOr<Config> back =
      palimpsest::ParseConfig(palimpsest::PrintEffective(*config), "printed.yaml", *inputs);
  PALIMPSEST_CHECK(back.ok(), "the printed config is refused");
  config->sources.clear();
  back->sources.clear();
  PALIMPSEST_CHECK(palimpsest::PrintEffective(*back) == palimpsest::PrintEffective(*config));
  return 0;
}
