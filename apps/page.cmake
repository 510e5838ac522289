# A page's parts as one constant of a generated header:
# cmake -DNAME=... -DFOLDER=... -DSCRIPTS=a.js,b.js -DOUT=... -P page.cmake
# The scripts are one: the first and the last run, between are functions.
file(READ ${FOLDER}/page.html html)
file(READ ${FOLDER}/page.css css)
string(REPLACE "," ";" SCRIPTS "${SCRIPTS}")
foreach(script IN LISTS SCRIPTS)
  file(READ ${FOLDER}/${script} text)
  string(APPEND js "${text}\n")
endforeach()
file(WRITE ${OUT} "// Made from ${NAME}.
#pragma once

#include \"apps/page.h\"

namespace palimpsest {

inline constexpr PageParts ${NAME} = {
    .html = R\"PART(${html})PART\",
    .css = R\"PART(${css})PART\",
    .js = R\"PART(${js})PART\"};

}  // namespace palimpsest
")
