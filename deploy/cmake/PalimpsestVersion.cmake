# The git revision as a generated header, refreshed at each build and rewritten only when it changes.
set(PALIMPSEST_VERSION_HEADER ${CMAKE_BINARY_DIR}/generated/palimpsest_version.h)
add_custom_target(palimpsest_version
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DVERSION=${PROJECT_VERSION}
          -DOUTPUT=${PALIMPSEST_VERSION_HEADER} -P ${CMAKE_SOURCE_DIR}/deploy/cmake/WriteVersion.cmake
  BYPRODUCTS ${PALIMPSEST_VERSION_HEADER})
