#include "tests/testing/golden.h"

#include <boost/json.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace palimpsest::testing {

namespace {

boost::json::value ReadJson(const std::string& name) {
  std::ifstream file(std::string(PALIMPSEST_SOURCE_DIR) + "/tests/golden/smollm2-135m/" + name + ".json");
  std::stringstream text;
  text << file.rdbuf();
  return boost::json::parse(text.str());
}

std::vector<int32_t> Ids(const boost::json::value& list) {
  std::vector<int32_t> ids;
  for (const auto& id : list.as_array()) ids.push_back(id.to_number<int32_t>());
  return ids;
}

std::vector<std::vector<std::vector<int32_t>>> Layers(const boost::json::value& list) {
  std::vector<std::vector<std::vector<int32_t>>> layers;
  for (const auto& layer : list.as_array()) {
    for (layers.emplace_back(); const auto& head : layer.as_array()) layers.back().push_back(Ids(head));
  }
  return layers;
}

}  // namespace

GoldenKept ReadGoldenKept(const std::string& name) {
  const boost::json::value json = ReadJson(name);
  GoldenKept golden{.ids = Ids(json.at("ids")), .catalyst = {}, .greedy = Ids(json.at("greedy")), .kept = {}};
  if (json.at("kind").as_string() == "snapkv") {
    golden.kept.push_back(Layers(json.at("kept")));
    return golden;
  }
  golden.catalyst = Ids(json.at("spec").at("catalyst"));
  for (const auto& cycle : json.at("kept").as_array()) golden.kept.push_back(Layers(cycle));
  return golden;
}

GoldenLogits ReadGoldenLogits(const std::string& name) {
  const boost::json::value json = ReadJson(name);
  GoldenLogits golden;
  golden.ids = Ids(json.at("ids"));
  golden.greedy = Ids(json.at("greedy"));
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
