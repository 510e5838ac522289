#include "tests/testing/induction_model.h"

#include <bit>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "kernels/tensor.h"
#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest::testing {
namespace {

using namespace induction;  // NOLINT: this file is about nothing else

// Channels of the residual stream. Blocks are 32 wide.
constexpr int64_t kOne = 0, kIsBos = 1, kNoCopy = 2, kEven = 3;  // kEven ...: what is left of the norm
constexpr int64_t kKeyCode = 32, kTexture = 64, kOutputCode = 96, kQueryEven = 128, kQueryOdd = 160,
                  kKeyTag = 192, kOut = 224;
constexpr int64_t kFfn = 256;
// Every embedding has this squared length, and norms give back what they took: layer 1 sees it unscaled.
constexpr float kSquares = 4160;
constexpr float kTheta = 0x1p64f;  // so that pair i turns by 4^-i a position, exactly
constexpr int64_t kScales = 12;    // pairs that measure distance: 4^12 positions

class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns) : rows_(rows), columns_(columns), values_(rows * columns) {}
  void Set(int64_t row, int64_t column, double value) {
    values_[row * columns_ + column] = FloatToBf16(static_cast<float>(value));
  }
  void AddTo(GgufWriter& writer, const std::string& name) const {
    writer.AddTensor(name, {static_cast<uint64_t>(columns_), static_cast<uint64_t>(rows_)}, TensorType::kBF16,
                     {reinterpret_cast<const uint8_t*>(values_.data()), values_.size() * sizeof(Bf16)});
  }

 private:
  int64_t rows_, columns_;
  std::vector<Bf16> values_;
};

struct AttentionWeights {
  Matrix q{kHeads * kHeadSize, kHidden}, k{kKvHeads * kHeadSize, kHidden}, v{kKvHeads * kHeadSize, kHidden},
      output{kHidden, kHeads*kHeadSize};
};

// KV heads hold codes in opposite order, so that taking one for the other shows.
int64_t Place(int64_t kv_head, int64_t x) { return kv_head == 0 ? x : 31 - x; }

std::array<float, 32> OutputCode(int32_t value) { return Code(value % 32, value / 32); }
constexpr int32_t kEndAsValue = kValues;

Matrix Embeddings() {
  Matrix m(kVocabulary, kHidden);
  const auto block = [&](int32_t id, int64_t channel, const std::array<float, 32>& code) {
    for (int64_t x = 0; x < 32; ++x) m.Set(id, channel + x, code[x]);
  };
  for (int32_t id = 0; id < kVocabulary; ++id) {
    const bool is_key = id >= Key(0) && id < Key(kKeys), is_value = id >= Value(0) && id < Value(kValues);
    m.Set(id, kOne, 64);
    if (id == kBos) {
      for (const int64_t channel : {kIsBos, kEven, kEven + 1, kEven + 2}) m.Set(id, channel, 4);
      continue;
    }
    if (is_key) {
      const int i = id - Key(0);
      block(id, kKeyCode, Code(i % 32, 8 * (i / 32)));
    } else {
      block(id, kTexture, Code(id % 32, 16 + 8 * (id / 32 % 2)));
    }
    if (is_value || id == kEnd) {
      block(id, kOutputCode, OutputCode(is_value ? id - Value(0) : kEndAsValue));
    } else {
      m.Set(id, kNoCopy, 4);
      m.Set(id, kEven, 4);
    }
  }
  return m;
}

// Head q attends to the token q + 1 before. Keys are all equal but that of BOS, so the logit of a distance is
// a sum of cosines of what it is off by, on scales from 1 to 4^11 positions, with its peak at nothing. BOS
// has a logit of its own, under the peak and above all else: where there is no such token, nothing is
// written.
AttentionWeights LookBack() {
  AttentionWeights w;
  for (int64_t g = 0; g < kKvHeads; ++g) {
    for (int64_t i = 0; i < kScales; ++i) {
      w.k.Set(g * kHeadSize + 2 * i, kOne, 0.25);
      w.k.Set(g * kHeadSize + 2 * i, kIsBos, -4);
    }
    w.k.Set(g * kHeadSize + 30, kIsBos, 51.75);
    for (int64_t x = 0; x < 32; ++x) {
      w.v.Set(g * kHeadSize + x, kKeyCode + Place(g, x), 1);
      w.v.Set(g * kHeadSize + 32 + x, kTexture + Place(g, x), 1);
    }
  }
  for (int64_t head = 0; head < kHeads; ++head) {
    const int distance = static_cast<int>(head) + 1;
    const int64_t first = head * kHeadSize, g = head / (kHeads / kKvHeads);
    for (int64_t i = 0; i < kScales; ++i) {
      const double amplitude = i == 0 ? 1.25 : 0.5, angle = std::ldexp(distance, static_cast<int>(-2 * i));
      w.q.Set(first + 2 * i, kOne, amplitude * std::cos(angle));
      w.q.Set(first + 2 * i + 1, kOne, -amplitude * std::sin(angle));
    }
    w.q.Set(first + 30, kOne, 0.5);
    const std::array<float, 32> of_key = Code(0, distance - 1), of_query = Code(0, distance);
    for (int64_t x = 0; x < 32; ++x) {
      const int64_t y = Place(g, x);
      w.output.Set(kKeyTag + y, first + x, of_key[y]);
      w.output.Set(kKeyTag + y, first + 32 + x, of_key[y] / 8);
      if (distance < kSlots) {
        w.output.Set((distance % 2 == 0 ? kQueryEven : kQueryOdd) + y, first + x, of_query[y]);
      }
    }
  }
  return w;
}

// A query tag meets the key tag of the same key and slot: logit 128. BOS is the sink at 83, for what is not
// there. Row 28 keeps tokens that are no values from being copied, of queries that follow a key.
AttentionWeights MatchAndCopy(bool scouts) {
  AttentionWeights w;
  for (int64_t g = 0; g < kKvHeads; ++g) {
    w.k.Set(g * kHeadSize + 28, kNoCopy, -16);
    w.k.Set(g * kHeadSize + 30, kIsBos, 20.75);
    for (int64_t x = 0; x < 32; ++x) {
      w.k.Set(g * kHeadSize + 32 + x, kKeyTag + Place(g, x), 4);
      w.v.Set(g * kHeadSize + x, kOutputCode + Place(g, x), 1);
      w.v.Set(g * kHeadSize + 32 + x, kTexture + Place(g, x), 1);
    }
  }
  // What `head` wants: code on `channel`, seen through `sign`.
  const auto wants = [&](int64_t head, int64_t channel, const std::array<float, 32>& sign) {
    const int64_t g = head / (kHeads / kKvHeads);
    for (int64_t x = 0; x < 32; ++x)
      w.q.Set(head * kHeadSize + 32 + x, channel + Place(g, x), 8 * sign[Place(g, x)]);
    w.q.Set(head * kHeadSize + 28, channel, 8);  // every code is 1 at its first place
  };
  for (int64_t head = 0; head < kHeads; ++head) w.q.Set(head * kHeadSize + 30, kOne, 0.125);
  constexpr int64_t kOddSlots = 0, kEvenSlots = 4;  // heads that copy
  wants(kOddSlots, kKeyCode, Code(0, 0));
  wants(kOddSlots, kQueryEven, Code(0, 0));
  wants(kEvenSlots, kQueryOdd, Code(0, 0));
  constexpr std::pair<int64_t, int> kScouts[] = {{1, 3}, {2, 5}, {3, 7}, {5, 2}, {6, 4}, {7, 6}};
  if (scouts) {
    for (const auto& [head, slot] : kScouts) wants(head, kKeyCode, Code(0, slot - 1));
  }
  for (const int64_t head : {kOddSlots, kEvenSlots}) {
    for (int64_t x = 0; x < 32; ++x)
      w.output.Set(kOut + Place(head / (kHeads / kKvHeads), x), head * kHeadSize + x, 1);
  }
  return w;
}

// What was copied gives its token 64 - 4; where nothing was, UNKNOWN has 12 and no other more than 0.
Matrix Output() {
  Matrix m(kVocabulary, kHidden);
  const auto value = [&](int32_t id, int32_t as) {
    const std::array<float, 32> code = OutputCode(as);
    for (int64_t x = 0; x < 32; ++x) m.Set(id, kOut + x, 2 * code[x]);
    m.Set(id, kOne, -1.0 / 16);
  };
  for (int32_t i = 0; i < kKeys; ++i) m.Set(Key(i), kOne, -1.0 / 16);
  for (int32_t j = 0; j < kValues; ++j) value(Value(j), j);
  value(kEnd, kEndAsValue);
  m.Set(kUnknown, kOne, 3.0 / 16);
  return m;
}

// Words are taken whole where they are in the vocabulary (llama-bpe), so there are no merges. What is no word
// of it gives no token.
void AddTokenizer(GgufWriter& writer) {
  constexpr int32_t kNormalType = 1, kControlType = 3;
  std::vector<std::string> tokens = {Word(kBos)};
  for (int32_t id = kBos + 1; id < kVocabulary; ++id) tokens.push_back(AlphabetOfBytes(Word(id)));
  std::vector<int32_t> types(tokens.size(), kNormalType);
  types[kBos] = kControlType;
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", "llama-bpe");
  writer.AddArray<std::string>("tokenizer.ggml.tokens", tokens);
  writer.AddArray<int32_t>("tokenizer.ggml.token_type", types);
  writer.AddArray<std::string>("tokenizer.ggml.merges", {});
  writer.Add("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(kBos));
  writer.Add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kEnd));
  writer.Add("tokenizer.ggml.add_bos_token", false);
  // BOS, then the texts as they are; an answer that is told again has its END again.
  writer.Add("tokenizer.chat_template",
             "{{ '<s>' }}{% for message in messages %}{{ message['content'] }}"
             "{% if message['role'] == 'assistant' %}{{ ' .' }}{% endif %}{% endfor %}");
}

void AddConfig(const InductionModelOptions& options, GgufWriter& writer) {
  const auto number = [&](const char* key, int64_t value) { writer.Add(key, static_cast<uint32_t>(value)); };
  writer.Add("general.architecture", "llama");
  writer.Add("general.name", "induction");
  number("llama.block_count", 2);
  number("llama.embedding_length", kHidden);
  number("llama.feed_forward_length", kFfn);
  number("llama.attention.head_count", kHeads);
  number("llama.attention.head_count_kv", kKvHeads);
  number("llama.context_length", options.context);
  number("llama.rope.dimension_count", kHeadSize);
  writer.Add("llama.rope.freq_base", kTheta);
  writer.Add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

}  // namespace

std::string induction::Word(int32_t id) {
  constexpr std::array<const char*, 4> kOthers = {"<s>", " .", " ?", "\n\n"};
  if (id < Key(0)) return kOthers[static_cast<size_t>(id)];
  const auto word = [](char kind, int32_t number) {
    return std::string{' ', kind, static_cast<char>('a' + number / 26), static_cast<char>('a' + number % 26)};
  };
  if (id < Value(0)) return word('k', id - Key(0));
  return id < Filler(0) ? word('v', id - Value(0)) : word('w', id - Filler(0));
}

// With the trace of GF(32) = GF(2)[t] / (t^5 + t^2 + 1): c(a, b)[x] = (-1)^Tr(a x + b x^3).
std::array<float, 32> induction::Code(int a, int b) {
  const auto product = [](int p, int q) {
    int sum = 0;
    for (; q != 0; q >>= 1) {
      if ((q & 1) != 0) sum ^= p;
      p <<= 1;
      if ((p & 32) != 0) p ^= 0b100101;
    }
    return sum;
  };
  std::array<float, 32> code;
  for (int x = 0; x < 32; ++x) {
    const int sum = product(a, x) ^ product(b, product(x, product(x, x)));
    code[x] = std::popcount(static_cast<unsigned>(sum & 0b01001)) % 2 == 0 ? 1 : -1;
  }
  return code;
}

GgufWriter InductionModelWriter(const InductionModelOptions& options) {
  GgufWriter writer;
  AddConfig(options, writer);
  AddTokenizer(writer);
  const std::vector<float> norm(kHidden, std::sqrt(kSquares / kHidden));
  Embeddings().AddTo(writer, "token_embd.weight");
  writer.AddF32("output_norm.weight", {norm.size()}, norm);
  Output().AddTo(writer, "output.weight");
  const AttentionWeights layers[] = {LookBack(), MatchAndCopy(options.scouts)};
  for (int layer = 0; layer < 2; ++layer) {
    const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", layer, part); };
    writer.AddF32(name("attn_norm"), {norm.size()}, norm);
    layers[layer].q.AddTo(writer, name("attn_q"));
    layers[layer].k.AddTo(writer, name("attn_k"));
    layers[layer].v.AddTo(writer, name("attn_v"));
    layers[layer].output.AddTo(writer, name("attn_output"));
    writer.AddF32(name("ffn_norm"), {norm.size()}, norm);
    for (const char* part : {"ffn_gate", "ffn_up"}) Matrix(kFfn, kHidden).AddTo(writer, name(part));
    Matrix(kHidden, kFfn).AddTo(writer, name("ffn_down"));
  }
  return writer;
}

std::shared_ptr<const GgufFile> InductionModel(const InductionModelOptions& options) {
  return ReadBack(InductionModelWriter(options), "induction.gguf");
}

absl::Status WriteInductionModel(const InductionModelOptions& options, const std::string& path) {
  return InductionModelWriter(options).Write(path);
}

}  // namespace palimpsest::testing
