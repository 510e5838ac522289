# The parts of the page as constants of a generated header: cmake -DFOLDER=... -DOUT=... -P page.cmake
file(READ ${FOLDER}/page.html html)
file(READ ${FOLDER}/page.css css)
foreach(script data text page start)  # one script: the first and the last run, between are functions
  file(READ ${FOLDER}/${script}.js text)
  string(APPEND js "${text}\n")
endforeach()
file(WRITE ${OUT} "// Made from apps/inspect_page/.
#pragma once

#include <string_view>

namespace palimpsest {

inline constexpr std::string_view kInspectPageHtml = R\"PART(${html})PART\";

inline constexpr std::string_view kInspectPageCss = R\"PART(${css})PART\";

inline constexpr std::string_view kInspectPageJs = R\"PART(${js})PART\";

}  // namespace palimpsest
")
