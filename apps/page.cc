#include "apps/page.h"

#include <fmt/format.h>

#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Fit to stand inside of <script>: outside of its strings JSON has none of these characters.
std::string InsideScript(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    if (c == '<' || c == '>' || c == '&') {
      safe += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      safe += c;
    }
  }
  return safe;
}

}  // namespace

// What a part holds is not looked at again.
std::string FillPage(const PageParts& parts, std::string_view json) {
  const std::string data = InsideScript(json);
  std::string page;
  std::string_view rest = parts.html;
  const std::pair<std::string_view, std::string_view> places[] = {
      {"{{style}}", parts.css}, {"{{data}}", data}, {"{{script}}", parts.js}};
  for (const auto& [name, content] : places) {
    const size_t at = rest.find(name);
    PALIMPSEST_CHECK(at != std::string_view::npos, "page.html has no {}", name);
    page.append(rest.substr(0, at)).append(content);
    rest.remove_prefix(at + name.size());
  }
  return page.append(rest);
}

}  // namespace palimpsest
