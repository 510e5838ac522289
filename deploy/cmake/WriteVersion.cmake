# Run by the target palimpsest_version: SOURCE_DIR, VERSION and OUTPUT are given.
execute_process(COMMAND git -C ${SOURCE_DIR} -c safe.directory=* describe --always --dirty --abbrev=12
                OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR revision STREQUAL "")
  set(revision "unknown")
endif()
set(text "#pragma once\n#define PALIMPSEST_VERSION \"${VERSION}\"\n#define PALIMPSEST_REVISION \"${revision}\"\n")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT "${old}" STREQUAL "${text}")
  file(WRITE ${OUTPUT} "${text}")
endif()
