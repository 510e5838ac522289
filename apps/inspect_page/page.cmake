# The parts of the page as constants of a generated header: cmake -DFOLDER=... -DOUT=... -P page.cmake
foreach(part html css js)
  file(READ ${FOLDER}/page.${part} text)
  string(TOUPPER ${part} upper)
  string(SUBSTRING ${upper} 0 1 first)
  string(SUBSTRING ${part} 1 -1 others)
  string(APPEND header "inline constexpr std::string_view kInspectPage${first}${others} = R\"PART(${text})PART\";\n\n")
endforeach()
file(WRITE ${OUT} "// Made from apps/inspect_page/.
#pragma once

#include <string_view>

namespace palimpsest {

${header}}  // namespace palimpsest
")
