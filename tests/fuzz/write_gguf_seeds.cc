// Writes the seed files of gguf_fuzz into the folder given: small files that reach each part of the reader.
#include <fstream>
#include <string>

#include "proto/base/status.h"
#include "tests/testing/gguf_writer.h"

namespace palimpsest {
namespace {

void Write(const std::string& folder, const std::string& name, const GgufWriter& writer) {
  const absl::Status status = writer.Write(folder + "/" + name);
  PALIMPSEST_CHECK(status.ok(), "{}", Message(status));
}

// Two blocks of every type that we expand.
GgufWriter EveryTensorType() {
  GgufWriter writer;
  for (const TensorType type :
       {TensorType::kF32, TensorType::kF16, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
        TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kQ6_K, TensorType::kBF16}) {
    const TensorFormat* format = FindTensorFormat(static_cast<uint32_t>(type));
    std::vector<uint8_t> bytes(2 * format->block_bytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37);
    writer.AddTensor(format->name, {format->block_elements, 2}, type, bytes);
  }
  return writer;
}

GgufWriter Vocabulary() {
  GgufWriter writer;
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.AddArray<std::string>("tokenizer.ggml.tokens", {"a", "b", "ab", "<|end|>"});
  writer.AddArray<int32_t>("tokenizer.ggml.token_type", {1, 1, 1, 3});
  writer.AddArray<std::string>("tokenizer.ggml.merges", {"a b"});
  return writer;
}

void WriteAll(const std::string& folder) {
  Write(folder, "sample.gguf", SampleGguf());
  Write(folder, "tensor_types.gguf", EveryTensorType());
  Write(folder, "vocabulary.gguf", Vocabulary());
  Write(folder, "nothing.gguf", GgufWriter());
  GgufWriter version_two = Vocabulary();
  version_two.SetVersion(2);
  Write(folder, "version_two.gguf", version_two);
  GgufWriter big_endian;
  big_endian.SetVersion(0x03000000);
  Write(folder, "big_endian.gguf", big_endian);
  GgufWriter aligned;
  aligned.SetAlignment(8);
  aligned.AddF32("a", {1, 1, 1, 1}, std::vector<float>{1});
  aligned.AddF32("b", {1, 2}, std::vector<float>{2, 3});
  Write(folder, "aligned_8.gguf", aligned);
  GgufWriter overlapping = aligned;
  overlapping.SetTensorOffset("b", 0);
  Write(folder, "overlapping.gguf", overlapping);
}

}  // namespace
}  // namespace palimpsest

int main(int argc, char** argv) {
  PALIMPSEST_CHECK(argc == 2, "usage: write_gguf_seeds FOLDER");
  palimpsest::WriteAll(argv[1]);
}
