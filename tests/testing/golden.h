// The goldens of tests/golden/smollm2-135m as plain data, and the model file they were made with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace palimpsest::testing {

struct GoldenLogits {
  std::vector<int32_t> ids;  // prompt
  struct Top {
    int32_t id;
    double logit, log_probability;
  };
  std::vector<Top> top;  // ten best after the prompt
  std::vector<int32_t> greedy;
};
GoldenLogits ReadGoldenLogits(const std::string& name);  // "logits_short"

// What a policy kept, and the answer behind it.
struct GoldenKept {
  std::vector<int32_t> ids;  // prompt
  std::vector<int32_t> catalyst;
  std::vector<int32_t> greedy;
  // (cycles, layers, kv_heads, kept), ascending; of snapkv one cycle.
  std::vector<std::vector<std::vector<std::vector<int32_t>>>> kept;
};
GoldenKept ReadGoldenKept(const std::string& name);  // "snapkv_g1"

// Path of the quick-start model (PALIMPSEST_TEST_MODEL); nullopt: tests that need it skip.
std::optional<std::string> TestModel();
inline constexpr char kNoModel[] = "PALIMPSEST_TEST_MODEL is not set: no model file to test with";

}  // namespace palimpsest::testing
