#include "kernels/rope.h"

#include <cmath>

namespace palimpsest {

RopeTable::RopeTable(int64_t head_size, int64_t rope_size, double theta, std::vector<double> factors,
                     int64_t cached)
    : head_size_(head_size),
      frequency_(static_cast<size_t>(head_size / 2), 0.0),
      cached_(cached),
      table_(cached * 2 * head_size) {
  for (int64_t i = 0; i < rope_size / 2; ++i) {
    const size_t at = static_cast<size_t>(i);
    const double factor = at < factors.size() ? factors[at] : 1.0;
    frequency_[at] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope_size)) / factor;
  }
  for (int64_t position = 0; position < cached; ++position)
    Fill(position, table_.data() + position * row_floats());
}

void RopeTable::Fill(int64_t position, float* row) const {
  float* cosines = row;
  float* sines = row + head_size_;
  for (int64_t i = 0; i < head_size_ / 2; ++i) {
    const double angle = static_cast<double>(position) * frequency_[static_cast<size_t>(i)];
    const float c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
    cosines[2 * i] = cosines[2 * i + 1] = c;
    sines[2 * i] = -s;
    sines[2 * i + 1] = s;
  }
}

}  // namespace palimpsest
