# Compiler, warnings, sanitizers and the libraries that every folder may name in DEPS.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

option(PALIMPSEST_TESTS "Build the tests" ON)
option(PALIMPSEST_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
option(PALIMPSEST_PRECOMPILE "Read the headers that most files include once" OFF)
set(PALIMPSEST_SANITIZE "" CACHE STRING "address+undefined, thread or empty")

find_package(Threads REQUIRED)
add_compile_options(-pthread)  # for all alike: headers precompiled without it cannot be read with it
find_package(Protobuf REQUIRED)  # CMake's own module; must come before gRPC
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(yaml-cpp CONFIG REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(RocksDB CONFIG REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

# Our own code only: imported libraries' headers are SYSTEM and stay silent.
add_library(palimpsest_compile INTERFACE)
target_compile_options(palimpsest_compile INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                       -Woverloaded-virtual -Wimplicit-fallthrough -Wno-missing-field-initializers -Werror -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(palimpsest_compile INTERFACE -Wthread-safety)
else()
  # g++ 12 takes "text" + std::string for overlapping memory, or for memory without end (its bug 105651).
  target_compile_options(palimpsest_compile INTERFACE -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds)
endif()
target_include_directories(palimpsest_compile INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)

# Instrumented code makes g++ warn of what is not there; the release build holds the same sources to -Werror.
if(PALIMPSEST_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(palimpsest_compile INTERFACE -Wno-error)
endif()
if(PALIMPSEST_SANITIZE STREQUAL "address+undefined")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=address,undefined)
elseif(PALIMPSEST_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread)
  # ThreadSanitizer does not know fences; the locks of Asio's queues order the same things.
  add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)
  add_link_options(-fsanitize=thread)
elseif(NOT PALIMPSEST_SANITIZE STREQUAL "")
  message(FATAL_ERROR "PALIMPSEST_SANITIZE=${PALIMPSEST_SANITIZE}: use address+undefined, thread or nothing")
endif()
if(PALIMPSEST_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "PALIMPSEST_FUZZ needs clang: configure with the preset 'asan'")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
