// Any bytes as a chat template: refused or parsed, and then rendered within the limits. A template's first
// render is over messages whose texts come from the input too, the second cuts it into a prompt frame.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/base/status.h"
#include "text/chat_template.h"

namespace palimpsest {
namespace {

void Fuzz(std::string_view input) {
  // Behind the first 0x01 byte stands the user's text.
  const size_t cut = std::min(input.find('\x01'), input.size());
  const std::string source(input.substr(0, cut));
  const std::string text(input.substr(std::min(cut + 1, input.size())));
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) {
    PALIMPSEST_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  ChatTemplate::Options options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = std::chrono::system_clock::from_time_t(1741356309);
  const auto rendered =
      (*parsed)->Render({{"system", "Be brief."}, {"user", text}, {"assistant", "{{ x }}"}}, options);
  if (!rendered.ok()) {
    PALIMPSEST_CHECK(rendered.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  PALIMPSEST_CHECK(rendered->size() <= 64 << 20);
  (void)MakePromptFrame(**parsed, options);
}

}  // namespace
}  // namespace palimpsest

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  palimpsest::Fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
