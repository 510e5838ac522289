#include "tests/testing/golden.h"

#include <boost/json.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace palimpsest::testing {

GoldenLogits ReadGoldenLogits(const std::string& name) {
  std::ifstream file(std::string(PALIMPSEST_SOURCE_DIR) + "/tests/golden/smollm2-135m/" + name + ".json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str());
  GoldenLogits golden;
  for (const auto& id : json.at("ids").as_array()) golden.ids.push_back(id.to_number<int32_t>());
  for (const auto& id : json.at("greedy").as_array()) golden.greedy.push_back(id.to_number<int32_t>());
  for (const auto& top : json.at("top").as_array()) {
    golden.top.push_back(
        {top.at(0).to_number<int32_t>(), top.at(1).to_number<double>(), top.at(2).to_number<double>()});
  }
  return golden;
}

std::optional<std::string> TestModel() {
  const char* path = std::getenv("PALIMPSEST_TEST_MODEL");
  if (path == nullptr || *path == '\0') return std::nullopt;
  return path;
}

}  // namespace palimpsest::testing
