// A needle for each turn: the number of a key, hidden at a depth of a haystack, and the question for it.
//
// Source: RULER's niah_single_1 (noise) and niah_single_2 (essays; here any prose, and each sample begins at
// another sentence of it, so that samples are independent).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/niah/haystack.h"
#include "apps/niah/task.h"

namespace palimpsest {

class SingleNeedle final : public NiahTask {
 public:
  SingleNeedle(std::string_view name, std::unique_ptr<Haystack> haystack, bool facts);
  std::string_view name() const override { return name_; }
  absl::StatusOr<NiahSample> Generate(const NiahRequest& request,
                                      const CountSampleTokens& count) const override;
  double Score(std::string_view output, const std::vector<std::string>& references) const override;

 private:
  const std::string name_;
  const std::unique_ptr<Haystack> haystack_;
  const bool facts_;
};

}  // namespace palimpsest
