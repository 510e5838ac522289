// Progress of reading a prompt, as a bar that begins once it is known to be worth one.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "proto/base/progress.h"

namespace palimpsest {

class LateProgress {
 public:
  LateProgress(std::string label, ProgressOutput output)
      : label_(std::move(label)), output_(std::move(output)) {}

  void Set(int64_t done, int64_t total) {
    constexpr int64_t kTokensMin = 1024;  // below this, a bar would flash by
    // Before anything is done the total may be a document's alone; with the prompt's prefix it is a little
    // more.
    if (total < kTokensMin || (done == 0 && !progress_.has_value())) return;
    if (!progress_.has_value()) progress_.emplace(label_, "tokens", total, output_);
    progress_->Add(done - progress_->done());
    if (done == total && !ended_) {
      progress_->Done();
      ended_ = true;
    }
  }

 private:
  const std::string label_;
  const ProgressOutput output_;
  std::optional<Progress> progress_;
  bool ended_ = false;
};

}  // namespace palimpsest
