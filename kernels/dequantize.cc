#include "kernels/dequantize.h"

#include <bit>
#include <cstring>

#include "proto/base/checked_math.h"
#include "proto/base/status.h"
#include "text/gguf_format.h"

namespace palimpsest {
namespace {

// Scales are little-endian halves at any address.
inline uint16_t LoadHalfBits(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

// IEEE binary16 to binary32: exact, without branches so that loops over it vectorise.
inline float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t normal = magnitude + (112u << 23);  // exponent bias 15 -> 127
  const uint32_t special = magnitude | 0x7f800000u;  // infinity and NaN keep their fraction
  // Subnormal: put the fraction under an implicit one of weight 2^-14, then take that one away.
  const float small = std::bit_cast<float>(magnitude + (113u << 23)) - std::bit_cast<float>(113u << 23);
  const uint32_t finite = magnitude < (1u << 23) ? std::bit_cast<uint32_t>(small) : normal;
  return std::bit_cast<float>(sign | (magnitude >= (31u << 23) ? special : finite));
}

inline float LoadHalf(const uint8_t* bytes) { return HalfToFloat(LoadHalfBits(bytes)); }

// One function per format: expands one block from `in` (block_bytes) to `out` (block_elements).

void ExpandF16(const uint8_t* in, float* out) { *out = LoadHalf(in); }

void ExpandBF16(const uint8_t* in, float* out) {
  *out = std::bit_cast<float>(static_cast<uint32_t>(LoadHalfBits(in)) << 16);
}

// d: half; q[16]: number j in the low, number j + 16 in the high nibble. x = d (q - 8)
void ExpandQ4_0(const uint8_t* in, float* out) {
  const float d = LoadHalf(in);
  const uint8_t* q = in + 2;
  for (int j = 0; j < 16; ++j) out[j] = d * static_cast<float>((q[j] & 15) - 8);
  for (int j = 0; j < 16; ++j) out[j + 16] = d * static_cast<float>((q[j] >> 4) - 8);
}

// d, m: halves; q[16] as Q4_0. x = d q + m
void ExpandQ4_1(const uint8_t* in, float* out) {
  const float d = LoadHalf(in), m = LoadHalf(in + 2);
  const uint8_t* q = in + 4;
  for (int j = 0; j < 16; ++j) out[j] = d * static_cast<float>(q[j] & 15) + m;
  for (int j = 0; j < 16; ++j) out[j + 16] = d * static_cast<float>(q[j] >> 4) + m;
}

// The 32 five-bit numbers of Q5_0 and Q5_1: bit j of `high` is the fifth bit of number j; q[16] as Q4_0.
inline void UnpackFiveBits(const uint8_t* high, const uint8_t* q, int* numbers) {
  uint32_t fifth;
  std::memcpy(&fifth, high, sizeof fifth);
  for (int j = 0; j < 16; ++j) {
    numbers[j] = (q[j] & 15) | static_cast<int>((fifth >> j & 1) << 4);
    numbers[j + 16] = (q[j] >> 4) | static_cast<int>((fifth >> (j + 16) & 1) << 4);
  }
}

// d: half; high[4]; q[16]. x = d (q - 16)
void ExpandQ5_0(const uint8_t* in, float* out) {
  const float d = LoadHalf(in);
  int numbers[32];
  UnpackFiveBits(in + 2, in + 6, numbers);
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(numbers[j] - 16);
}

// d, m: halves; high[4]; q[16]. x = d q + m
void ExpandQ5_1(const uint8_t* in, float* out) {
  const float d = LoadHalf(in), m = LoadHalf(in + 2);
  int numbers[32];
  UnpackFiveBits(in + 4, in + 8, numbers);
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(numbers[j]) + m;
}

// d: half; q[32]: signed bytes. x = d q
void ExpandQ8_0(const uint8_t* in, float* out) {
  const float d = LoadHalf(in);
  const uint8_t* q = in + 2;
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(q[j]));
}

// Scale and minimum (six bits each) of run i of a Q4_K block: the first four runs lie in the low six bits of
// bytes 0..7, the last four are split between the nibbles of bytes 8..11 and the top two bits of bytes 0..7.
inline void UnpackScaleMin(const uint8_t* s, int i, int* scale, int* min) {
  if (i < 4) {
    *scale = s[i] & 63;
    *min = s[i + 4] & 63;
  } else {
    *scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
    *min = (s[i + 4] >> 4) | (s[i] >> 6) << 4;
  }
}

// d, dmin: halves; scales[12] of 8 runs of 32 numbers; q[128]: each 32 bytes hold two runs, low nibbles
// first. x = (d scale) q - dmin min
void ExpandQ4_K(const uint8_t* in, float* out) {
  const float d = LoadHalf(in), dmin = LoadHalf(in + 2);
  const uint8_t* scales = in + 4;
  const uint8_t* q = in + 16;
  for (int run = 0; run < 8; run += 2, q += 32, out += 64) {
    int scale, min;
    UnpackScaleMin(scales, run, &scale, &min);
    const float d_low = d * static_cast<float>(scale), m_low = dmin * static_cast<float>(min);
    UnpackScaleMin(scales, run + 1, &scale, &min);
    const float d_high = d * static_cast<float>(scale), m_high = dmin * static_cast<float>(min);
    for (int j = 0; j < 32; ++j) out[j] = d_low * static_cast<float>(q[j] & 15) - m_low;
    for (int j = 0; j < 32; ++j) out[j + 32] = d_high * static_cast<float>(q[j] >> 4) - m_high;
  }
}

// low[128], high[64], scales[16] (signed bytes, one per 16 numbers), d: half. In each half of 128 numbers,
// number 32 k + j takes four bits from low[j + 32 (k % 2)] (nibble k / 2) and two from high[j] (bits 2k, 2k +
// 1). x = (d scale) (q - 32)
void ExpandQ6_K(const uint8_t* in, float* out) {
  const float d = LoadHalf(in + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* high = in + 128 + 32 * half;
    for (int k = 0; k < 4; ++k) {
      const uint8_t* low = in + 64 * half + 32 * (k % 2);
      const uint8_t* scales = in + 192 + 8 * half + 2 * k;
      for (int j = 0; j < 32; ++j) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(scales[j / 16]));
        const int q = (low[j] >> (k / 2 * 4) & 15) | (high[j] >> (2 * k) & 3) << 4;
        *out++ = scale * static_cast<float>(q - 32);
      }
    }
  }
}

template <int kBlockBytes, int kBlockElements, void (*kExpand)(const uint8_t*, float*)>
void ExpandAll(const uint8_t* in, size_t blocks, float* out) {
  for (size_t i = 0; i < blocks; ++i) kExpand(in + i * kBlockBytes, out + i * kBlockElements);
}

void ExpandF32(const uint8_t* in, size_t blocks, float* out) {
  if (blocks != 0) std::memcpy(out, in, blocks * sizeof(float));
}

using Expander = void (*)(const uint8_t* in, size_t blocks, float* out);

// nullptr for a type that we do not expand.
Expander FindExpander(uint32_t type) {
  switch (static_cast<TensorType>(type)) {
    case TensorType::kF32:
      return ExpandF32;
    case TensorType::kF16:
      return ExpandAll<2, 1, ExpandF16>;
    case TensorType::kBF16:
      return ExpandAll<2, 1, ExpandBF16>;
    case TensorType::kQ4_0:
      return ExpandAll<18, 32, ExpandQ4_0>;
    case TensorType::kQ4_1:
      return ExpandAll<20, 32, ExpandQ4_1>;
    case TensorType::kQ5_0:
      return ExpandAll<22, 32, ExpandQ5_0>;
    case TensorType::kQ5_1:
      return ExpandAll<24, 32, ExpandQ5_1>;
    case TensorType::kQ8_0:
      return ExpandAll<34, 32, ExpandQ8_0>;
    case TensorType::kQ4_K:
      return ExpandAll<144, 256, ExpandQ4_K>;
    case TensorType::kQ6_K:
      return ExpandAll<210, 256, ExpandQ6_K>;
  }
  return nullptr;  // a number from a file
}

}  // namespace

absl::StatusOr<QuantFormat> QuantFormatOf(uint32_t type) {
  const TensorFormat* format = FindTensorFormat(type);
  if (format == nullptr || FindExpander(type) == nullptr) {
    return Unimplemented(
        "tensor type {} ({}) cannot be expanded; use a model in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
        "Q5_1, Q4_K or Q6_K",
        TensorTypeName(type), type);
  }
  return QuantFormat{format->block_elements, format->block_bytes};
}

absl::Status Dequantize(uint32_t type, std::span<const uint8_t> bytes, std::span<float> out) {
  PALIMPSEST_ASSIGN_OR_RETURN(const QuantFormat format, QuantFormatOf(type));
  const auto elements = static_cast<int64_t>(out.size());
  const int64_t blocks = elements / format.block_elements;
  if (elements % format.block_elements != 0) {
    return InvalidArgument("{} numbers of {} are no multiple of its block of {}; ask for whole blocks",
                           elements, TensorTypeName(type), format.block_elements);
  }
  if (!(CheckedSize(blocks) * format.block_bytes).AtMost(bytes.size())) {
    return InvalidArgument(
        "{} numbers of {} are {} blocks of {} bytes, but only {} bytes are given; check the shape", elements,
        TensorTypeName(type), blocks, format.block_bytes, bytes.size());
  }
  FindExpander(type)(bytes.data(), static_cast<size_t>(blocks), out.data());
  return absl::OkStatus();
}

}  // namespace palimpsest
