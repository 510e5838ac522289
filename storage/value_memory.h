// Memory of values that were read and let go, used again for the next ones. What a restore reads is a value
// of the same size behind the other, each gone as soon as it is on the device: new memory for each cost as
// much as decrypting it (first touch of its pages, zeros that are written over).
//
// Memory : at most kKeptBytes that nobody uses; what is in use is its holders'.
// Threads: any; what is shared may outlive this.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "storage/tier.h"

namespace palimpsest {

class ValueMemory : public std::enable_shared_from_this<ValueMemory> {
 public:
  static constexpr size_t kKeptBytes = 96 << 20;  // what eight readers of the quick-start model hold at once

  static std::shared_ptr<ValueMemory> Make() { return std::shared_ptr<ValueMemory>(new ValueMemory()); }

  // Of exactly so many bytes, with whatever was in them.
  std::vector<uint8_t> Take(size_t bytes);
  // Its memory comes back when the last holder lets it go.
  TierValue Share(std::vector<uint8_t> value);
  size_t kept_bytes() const;  // that nobody uses

 private:
  ValueMemory() = default;
  void GiveBack(std::vector<uint8_t> value);

  mutable std::mutex mu_;
  std::deque<std::vector<uint8_t>> kept_;  // the longest unused first
  size_t kept_bytes_ = 0;
};

}  // namespace palimpsest
