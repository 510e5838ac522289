#include "text/gguf_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/gguf.h"

namespace palimpsest {
namespace {

// By type number. Gaps are numbers that the format retired; Q8_1 and Q8_K exist only in memory, never in
// files.
constexpr TensorFormat kTensorFormats[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},     {8, "Q8_0", 32, 34},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},   {14, "Q6_K", 256, 210},
    {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110}, {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},         {25, "I16", 1, 2},       {26, "I32", 1, 4},        {27, "I64", 1, 8},
    {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},  {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},   {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},
};

}  // namespace

const TensorFormat* FindTensorFormat(uint32_t type) {
  const auto* found = std::find_if(std::begin(kTensorFormats), std::end(kTensorFormats),
                                   [type](const TensorFormat& format) { return format.type == type; });
  return found == std::end(kTensorFormats) ? nullptr : found;
}

std::string TensorTypeName(uint32_t type) {
  const TensorFormat* format = FindTensorFormat(type);
  return format != nullptr ? std::string(format->name) : fmt::format("type {}", type);
}

std::string GgufValueTypeName(GgufValueType type) {
  static constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                "bool", "string", "array", "u64", "i64", "f64"};
  const auto number = static_cast<uint32_t>(type);
  return number < std::size(kNames) ? std::string(kNames[number]) : fmt::format("type {}", number);
}

uint64_t GgufScalarBytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;  // a number from a file that names no type
}

}  // namespace palimpsest
