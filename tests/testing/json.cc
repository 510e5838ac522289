#include "tests/testing/json.h"

#include <gtest/gtest.h>

#include <boost/json/src.hpp>  // the library's code: Debian has no compiled one in the packages that we use
#include <fstream>
#include <sstream>

namespace palimpsest::testing {

std::string ReadFileOrFail(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  if (!file) ADD_FAILURE() << path << " cannot be read";
  return content.str();
}

boost::json::value ReadJsonOrFail(const std::string& path) {
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(ReadFileOrFail(path), error);
  if (error) ADD_FAILURE() << path << " is no JSON: " << error.message();
  return value;
}

}  // namespace palimpsest::testing
