// Any bytes as a GGUF file: read or refused, never a crash, a leak or an overflow. What is read is then used
// as the model loader uses it: every getter, every tensor's bytes, and their expansion.
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/dequantize.h"
#include "proto/base/status.h"
#include "text/gguf.h"

namespace palimpsest {
namespace {

constexpr std::string_view kKeys[] = {"s.u8",
                                      "s.i8",
                                      "s.u16",
                                      "s.i16",
                                      "s.u32",
                                      "s.i32",
                                      "s.f32",
                                      "s.bool",
                                      "s.string",
                                      "s.u64",
                                      "s.i64",
                                      "s.f64",
                                      "a.u8",
                                      "a.i8",
                                      "a.u16",
                                      "a.i16",
                                      "a.u32",
                                      "a.i32",
                                      "a.f32",
                                      "a.bool",
                                      "a.string",
                                      "a.u64",
                                      "a.i64",
                                      "a.f64",
                                      "a.empty",
                                      "general.architecture",
                                      "tokenizer.ggml.tokens",
                                      "tokenizer.ggml.token_type",
                                      "tokenizer.ggml.merges"};

void UseMetadata(const GgufFile& file) {
  for (const std::string_view key : kKeys) {
    (void)file.GetInt(key);
    (void)file.GetFloat(key);
    (void)file.GetBool(key);
    (void)file.GetString(key);
    (void)file.GetInts(key);
    (void)file.GetFloats(key);
    const auto strings = file.GetStrings(key);
    if (!strings.ok()) continue;
    uint8_t sum = 0;  // touch what the views show
    for (const std::string_view text : *strings) {
      for (const char c : text) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
    }
    volatile uint8_t sink = sum;
    (void)sink;
  }
}

void UseTensors(const GgufFile& file) {
  for (const GgufTensor& tensor : file.tensors()) {
    const auto found = file.Tensor(tensor.name);
    PALIMPSEST_CHECK(found.ok() && *found == &tensor, "a listed tensor is found");
    const auto format = QuantFormatOf(tensor.type);
    if (!format.ok()) continue;
    PALIMPSEST_CHECK(tensor.elements() / format->block_elements * format->block_bytes ==
                         static_cast<int64_t>(tensor.bytes.size()),
                     "bytes are the tensor's");
    std::vector<float> numbers(static_cast<size_t>(tensor.elements()));  // bounded by the input's size
    PALIMPSEST_CHECK(Dequantize(tensor.type, tensor.bytes, numbers).ok());
  }
}

}  // namespace
}  // namespace palimpsest

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = palimpsest::GgufFile::Parse({data, size}, "fuzz.gguf");
  if (!file.ok()) {
    PALIMPSEST_CHECK(palimpsest::Message(file.status()).rfind("fuzz.gguf: ", 0) == 0,
                     "the message names the file");
    return 0;
  }
  palimpsest::UseMetadata(**file);
  palimpsest::UseTensors(**file);
  (void)(*file)->ContentHash();
  return 0;
}
