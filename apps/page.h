// A page for a browser that holds all it needs: its parts are compiled in (page.cmake), its data stand in one
// JSON block.
//
// Safety: the data cannot end the block they stand in, whatever is in them; the page's script shows them as
// text only.
#pragma once

#include <string>
#include <string_view>

namespace palimpsest {

struct PageParts {
  std::string_view html;  // with {{style}}, {{data}} and {{script}}, each once and in this order
  std::string_view css, js;
};

std::string FillPage(const PageParts& parts, std::string_view json);

}  // namespace palimpsest
