// Views of memory and the one owning buffer. Row-major, last dimension contiguous, offsets int64.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace palimpsest {

// A bfloat16 is the upper half of a float32. Arithmetic is done in float; these two convert.
using Bf16 = uint16_t;

inline float Bf16ToFloat(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// Round to nearest, ties to even; NaN stays NaN. Same result as vcvtneps2bf16 for normal numbers.
inline Bf16 FloatToBf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Bf16>(bits >> 16 | 0x40);
  if ((bits & 0x7f800000u) == 0)
    return static_cast<Bf16>(bits >> 16 & 0x8000);  // denormals become zero, as in hardware
  return static_cast<Bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of numbers: element (r, c) is data[r * stride + c].
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;  // elements between rows
  T* row(int64_t r) const { return data + r * stride; }
};

// Owns `count` elements, zeroed, aligned to 2 MiB when large (huge pages) and to 64 bytes otherwise.
template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t count);
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data_.get()[i]; }
  // Grows to at least `count`, contents lost. Only growing allocates.
  void Reserve(int64_t count) {
    if (count > size_) *this = AlignedBuffer(count);
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
  int64_t size_ = 0;
};

// Zeroed memory of `bytes`; aborts with the number when the machine has none left.
void* AllocateAligned(int64_t bytes);

template <typename T>
AlignedBuffer<T>::AlignedBuffer(int64_t count)
    : data_(static_cast<T*>(AllocateAligned(count * static_cast<int64_t>(sizeof(T))))), size_(count) {}

}  // namespace palimpsest
