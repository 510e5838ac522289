# palimpsest_library(NAME name SRCS a.cc ... DEPS other ...): one folder (or one concept of it) as a static
# library palimpsest_<name>. DEPS are other palimpsest libraries by short name, or targets with '::' in their name.
function(palimpsest_resolve_deps out)
  set(resolved "")
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "::")
      list(APPEND resolved ${dep})
    else()
      list(APPEND resolved palimpsest_${dep})
    endif()
  endforeach()
  set(${out} ${resolved} PARENT_SCOPE)
endfunction()

# In AddressSanitizer's build (clang's), for what its tests spend no time in: with -O1 apps and coordinator take three times as
# long to compile.
set(PALIMPSEST_NOT_OPTIMISED $<$<AND:$<CONFIG:RelWithDebInfo>,$<CXX_COMPILER_ID:Clang>>:-O0>)

# A test's own file runs for a moment and is compiled for each change; what counts is in libraries. AddressSanitizer's build
# does not optimise it at all, but where PALIMPSEST_TEST_LOOPS says that the test is long loops of its own.
function(palimpsest_compile_quickly target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
  if(NOT PALIMPSEST_TEST_LOOPS)
    target_compile_options(${target} PRIVATE ${PALIMPSEST_NOT_OPTIMISED})
  endif()
endfunction()

# palimpsest_precompile(target [TESTS]): the headers that most files include, GoogleTest's too for TESTS, are read once for
# all targets: reading them is more than half of the work. The preset `debug` does without (PALIMPSEST_PRECOMPILE): it shows
# a file that forgot to include what it uses.
function(palimpsest_precompile target)
  if(NOT PALIMPSEST_PRECOMPILE)
    return()
  endif()
  set(shared palimpsest_precompiled${ARGN})
  # One for each optimisation: clang reads none that was made with another.
  get_directory_property(options COMPILE_OPTIONS)
  if(PALIMPSEST_NOT_OPTIMISED IN_LIST options)
    string(APPEND shared _O0)
  elseif(ARGN AND PALIMPSEST_TEST_LOOPS)
    string(APPEND shared _loops)
  endif()
  if(NOT TARGET ${shared})
    set(source ${CMAKE_BINARY_DIR}/generated/${shared}.cc)
    file(WRITE ${source} "int main() {}\n")
    # An executable for executables: they are compiled with -fPIE, libraries with -fPIC.
    if(ARGN)
      add_executable(${shared} ${source})
      target_link_libraries(${shared} PRIVATE GTest::gmock)
      palimpsest_compile_quickly(${shared})
      target_precompile_headers(${shared} PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
    else()
      add_library(${shared} OBJECT ${source})
    endif()
    target_link_libraries(${shared} PRIVATE palimpsest_compile absl::statusor absl::strings)
    target_precompile_headers(${shared} PRIVATE <algorithm> <chrono> <cmath> <filesystem> <fstream> <functional> <map>
                              <memory> <mutex> <optional> <random> <set> <span> <string> <thread> <vector>
                              <absl/status/statusor.h> <absl/strings/str_cat.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM ${shared})
endfunction()

function(palimpsest_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  palimpsest_resolve_deps(deps ${ARG_DEPS})
  add_library(palimpsest_${ARG_NAME} STATIC ${ARG_SRCS})
  target_link_libraries(palimpsest_${ARG_NAME} PUBLIC ${deps} PRIVATE palimpsest_compile)
  target_include_directories(palimpsest_${ARG_NAME} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
  palimpsest_precompile(palimpsest_${ARG_NAME})
endfunction()

# palimpsest_group(group target ...): a target that builds all its members, made at first use.
function(palimpsest_group group)
  if(NOT TARGET ${group})
    add_custom_target(${group})
  endif()
  if(ARGN)
    add_dependencies(${group} ${ARGN})
  endif()
endfunction()

# palimpsest_test(NAME name SRCS a_test.cc ... DEPS ... [LABELS label ...] [TIMEOUT seconds]): a GoogleTest program;
# ctest sees each of its cases. Labels: unit (the default; runs under ASan in CI), threads (under TSan too), model
# (needs the model file), slow; palimpsest_tests_<label> builds all programs of one. Tests find fixtures through
# PALIMPSEST_SOURCE_DIR.
function(palimpsest_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  palimpsest_resolve_deps(deps ${ARG_DEPS})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${deps} palimpsest_compile GTest::gmock GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE PALIMPSEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             PALIMPSEST_BINARY_DIR="${CMAKE_BINARY_DIR}")
  palimpsest_compile_quickly(${ARG_NAME})
  palimpsest_precompile(${ARG_NAME} TESTS)
  foreach(label IN LISTS ARG_LABELS)
    palimpsest_group(palimpsest_tests_${label} ${ARG_NAME})
  endforeach()
  # gtest_discover_tests hands its properties on as one flat list, so several labels travel as "unit,threads".
  list(JOIN ARG_LABELS "," labels)
  gtest_discover_tests(${ARG_NAME} NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS "${labels}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# palimpsest_fuzz(NAME name SRCS a_fuzz.cc DEPS ... SEEDS dir): a libFuzzer program, built when PALIMPSEST_FUZZ is on.
function(palimpsest_fuzz)
  cmake_parse_arguments(ARG "" "NAME;SEEDS" "SRCS;DEPS" ${ARGN})
  if(NOT PALIMPSEST_FUZZ)
    return()
  endif()
  palimpsest_resolve_deps(deps ${ARG_DEPS})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${deps} palimpsest_compile)
  target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
  palimpsest_group(palimpsest_fuzz_targets ${ARG_NAME})
endfunction()
