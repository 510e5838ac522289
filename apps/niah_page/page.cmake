# The parts of the page as constants of a generated header: cmake -DFOLDER=... -DOUT=... -P page.cmake
file(READ ${FOLDER}/page.html html)
file(READ ${FOLDER}/page.css css)
foreach(script data maps charts tables start)  # one script: the first and the last run, between are functions
  file(READ ${FOLDER}/${script}.js text)
  string(APPEND js "${text}\n")
endforeach()
file(WRITE ${OUT} "// Made from apps/niah_page/.
#pragma once

#include <string_view>

namespace palimpsest {

inline constexpr std::string_view kNiahPageHtml = R\"PART(${html})PART\";

inline constexpr std::string_view kNiahPageCss = R\"PART(${css})PART\";

inline constexpr std::string_view kNiahPageJs = R\"PART(${js})PART\";

}  // namespace palimpsest
")
