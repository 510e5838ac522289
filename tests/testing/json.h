// JSON for tests: Boost.JSON, compiled once in json.cc.
#pragma once

#include <boost/json.hpp>
#include <string>

namespace palimpsest::testing {

// Whole content of a file; fails the test and gives "" if it cannot be read.
std::string ReadFileOrFail(const std::string& path);

// The file as JSON; fails the test and gives null if it cannot be read or parsed.
boost::json::value ReadJsonOrFail(const std::string& path);

}  // namespace palimpsest::testing
