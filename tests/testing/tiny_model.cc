#include "tests/testing/tiny_model.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/dequantize.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest::testing {
namespace {

// By rank, each made of what stands before it; a space is a space here.
constexpr std::pair<const char*, const char*> kMerges[] = {
    {"t", "h"},  {"th", "e"}, {" ", "t"},   {"i", "n"},   {"e", "r"},  {"a", "n"},  {"o", "n"},
    {"r", "e"},  {" ", "a"},  {"a", "t"},   {"e", "n"},   {"o", "r"},  {" ", "s"},  {"e", "s"},
    {"i", "t"},  {" ", "w"},  {"an", "d"},  {" ", "the"}, {"o", "u"},  {"in", "g"}, {" ", "o"},
    {" ", "c"},  {"i", "s"},  {"a", "r"},   {" ", "and"}, {"e", "d"},  {" ", "b"},  {" ", "f"},
    {" ", "in"}, {"a", "l"},  {"o", "m"},   {" ", "p"},   {" o", "f"}, {" ", "m"},  {"l", "e"},
    {"ou", "r"}, {"s", "t"},  {"\n", "\n"}, {"e", "a"},   {" ", "h"},  {"ea", "r"},
};

constexpr char kChatTemplate[] =
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nAnswer from the document.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

constexpr int32_t kNormalType = 1, kControlType = 3;

void AddTokenizer(GgufWriter& writer) {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, merges;
  std::vector<int32_t> types(3, kControlType);
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  }
  for (const auto& [left, right] : kMerges) {
    tokens.push_back(AlphabetOfBytes(std::string(left) + right));
    merges.push_back(AlphabetOfBytes(left) + " " + AlphabetOfBytes(right));
  }
  types.resize(tokens.size(), kNormalType);
  PALIMPSEST_CHECK(static_cast<int64_t>(tokens.size()) == kTinyVocabulary, "{} tokens", tokens.size());
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", "smollm");
  writer.AddArray<std::string>("tokenizer.ggml.tokens", tokens);
  writer.AddArray<int32_t>("tokenizer.ggml.token_type", types);
  writer.AddArray<std::string>("tokenizer.ggml.merges", merges);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{2});
  writer.Add("tokenizer.ggml.add_bos_token", false);
  writer.Add("tokenizer.chat_template", kChatTemplate);
}

// Binary16 bits of a number in its range; what is below 2^-24 becomes zero. Rounds to nearest.
uint16_t HalfBits(float x) {
  const uint16_t sign = x < 0 ? 0x8000 : 0;
  const float magnitude = std::abs(x);
  PALIMPSEST_CHECK(magnitude < 65504, "{} is no half", x);
  if (magnitude < 0x1p-14f) return static_cast<uint16_t>(sign | std::lround(magnitude * 0x1p24f));
  const uint32_t bits =
      std::bit_cast<uint32_t>(magnitude) + 0xfff + (std::bit_cast<uint32_t>(magnitude) >> 13 & 1);
  return static_cast<uint16_t>(sign | ((bits >> 13) - (112u << 10)));
}

// Sum of four uniform numbers: close to normal, mean 0, variance 1.
double Spread(RngSequence& rng) {
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += rng.Uniform() - 0.5;
  return sum * std::sqrt(3.0);
}

// A quantised block is random bytes with its scales set. `spread` is that of the expanded numbers for a scale
// of 1; `min` is what must be stored as the second half (relative to the scale) so that they are around 0.
struct BlockScales {
  double spread = 0;
  int scale_at = 0;
  double min = 0;  // 0: the format has none
  int min_at = 2;
};
BlockScales ScalesOf(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return {.spread = 4.6};
    case TensorType::kQ4_1:
      return {.spread = 4.6, .min = -7.5};
    case TensorType::kQ5_0:
      return {.spread = 9.2};
    case TensorType::kQ5_1:
      return {.spread = 9.2, .min = -15.5};
    case TensorType::kQ8_0:
      return {.spread = 74};
    case TensorType::kQ4_K:
      return {.spread = 257, .min = 7.5};  // the minimum is subtracted; 6-bit scales are random too
    case TensorType::kQ6_K:
      return {.spread = 1370, .scale_at = 208};
    default:
      break;
  }
  PALIMPSEST_CHECK(false, "tensor type {}", static_cast<int>(type));
}

void Put(std::vector<uint8_t>& bytes, size_t at, const void* value, size_t size) {
  std::memcpy(bytes.data() + at, value, size);
}

std::vector<uint8_t> RandomBlocks(TensorType type, int64_t count, double scale, RngSequence& rng) {
  const auto format = QuantFormatOf(static_cast<uint32_t>(type));
  PALIMPSEST_CHECK(format.ok() && count % format->block_elements == 0, "{} numbers", count);
  const BlockScales scales = ScalesOf(type);
  const size_t block = static_cast<size_t>(format->block_bytes);
  std::vector<uint8_t> bytes(static_cast<size_t>(count / format->block_elements) * block);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng.Below(256));
  for (size_t at = 0; at < bytes.size(); at += block) {
    const double d = scale / scales.spread * (0.75 + 0.5 * rng.Uniform());
    const uint16_t half = HalfBits(static_cast<float>(d)), min = HalfBits(static_cast<float>(d * scales.min));
    Put(bytes, at + static_cast<size_t>(scales.scale_at), &half, 2);
    if (scales.min != 0) Put(bytes, at + static_cast<size_t>(scales.min_at), &min, 2);
  }
  return bytes;
}

// Adds tensors, each with its own stream of random numbers.
class Tensors {
 public:
  Tensors(const TinyModelOptions& options, GgufWriter& writer) : options_(options), writer_(writer) {}

  // Outputs have a spread of `gain` for inputs with a spread of 1.
  void Matrix(const std::string& name, int64_t rows, int64_t columns, double gain, bool lookup = false) {
    const double scale = lookup ? gain : gain / std::sqrt(static_cast<double>(columns));
    writer_.AddTensor(name, {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)}, options_.type,
                      RandomTensor(options_.type, rows * columns, scale, NextSeed()));
  }
  void Norm(const std::string& name) {
    RngSequence rng{Rng(NextSeed())};
    std::vector<float> values(static_cast<size_t>(options_.hidden));
    for (float& value : values) value = static_cast<float>(0.8 + 0.4 * rng.Uniform());
    writer_.AddF32(name, {values.size()}, values);
  }

 private:
  uint64_t NextSeed() { return options_.seed * 1000 + next_++; }
  const TinyModelOptions& options_;
  GgufWriter& writer_;
  uint64_t next_ = 0;
};

}  // namespace

std::vector<uint8_t> RandomTensor(TensorType type, int64_t count, double scale, uint64_t seed) {
  RngSequence rng{Rng(seed)};
  const auto plain = [&](size_t bytes_each, auto store) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count) * bytes_each);
    for (size_t at = 0; at < bytes.size(); at += bytes_each) {
      store(bytes.data() + at, static_cast<float>(scale * Spread(rng)));
    }
    return bytes;
  };
  if (type == TensorType::kF32) return plain(4, [](uint8_t* to, float x) { std::memcpy(to, &x, 4); });
  if (type == TensorType::kF16) {
    return plain(2, [](uint8_t* to, float x) {
      const uint16_t bits = HalfBits(x);
      std::memcpy(to, &bits, 2);
    });
  }
  if (type == TensorType::kBF16) {
    return plain(2, [](uint8_t* to, float x) {
      const uint16_t bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
      std::memcpy(to, &bits, 2);
    });
  }
  return RandomBlocks(type, count, scale, rng);
}

GgufWriter TinyModelWriter(const TinyModelOptions& o) {
  GgufWriter writer;
  const auto number = [&](const char* key, int64_t value) { writer.Add(key, static_cast<uint32_t>(value)); };
  const int64_t head_size = o.hidden / o.heads;
  writer.Add("general.architecture", "llama");
  writer.Add("general.name", "tiny");
  number("llama.block_count", o.layers);
  number("llama.embedding_length", o.hidden);
  number("llama.feed_forward_length", o.ffn);
  number("llama.attention.head_count", o.heads);
  number("llama.attention.head_count_kv", o.kv_heads);
  number("llama.context_length", o.context);
  number("llama.rope.dimension_count", head_size);
  writer.Add("llama.rope.freq_base", 10000.0f);
  writer.Add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  AddTokenizer(writer);

  Tensors tensors(o, writer);
  // Queries and keys of 1.4 give scores with a spread of two.
  constexpr double kQueryGain = 1.4, kKeyGain = 1.4, kBranchGain = 0.7;
  // A tied matrix must not be so large that each token only predicts itself.
  tensors.Matrix("token_embd.weight", kTinyVocabulary, o.hidden, o.tied_embeddings ? 0.3 : 1,
                 /*lookup=*/true);
  tensors.Norm("output_norm.weight");
  if (!o.tied_embeddings) tensors.Matrix("output.weight", kTinyVocabulary, o.hidden, 1);
  for (int64_t layer = 0; layer < o.layers; ++layer) {
    const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", layer, part); };
    tensors.Norm(name("attn_norm"));
    tensors.Matrix(name("attn_q"), o.hidden, o.hidden, kQueryGain);
    tensors.Matrix(name("attn_k"), o.kv_heads * head_size, o.hidden, kKeyGain);
    tensors.Matrix(name("attn_v"), o.kv_heads * head_size, o.hidden, 1);
    tensors.Matrix(name("attn_output"), o.hidden, o.hidden, kBranchGain);
    tensors.Norm(name("ffn_norm"));
    tensors.Matrix(name("ffn_gate"), o.ffn, o.hidden, 1);
    tensors.Matrix(name("ffn_up"), o.ffn, o.hidden, 1);
    tensors.Matrix(name("ffn_down"), o.hidden, o.ffn, 2 * kBranchGain);
  }
  return writer;
}

std::shared_ptr<const GgufFile> TinyModel(const TinyModelOptions& options) {
  return ReadBack(TinyModelWriter(options), "tiny.gguf");
}

absl::Status WriteTinyModel(const TinyModelOptions& options, const std::string& path) {
  return TinyModelWriter(options).Write(path);
}

}  // namespace palimpsest::testing
