// The induction model is what docs/induction-model.md says: codes, margins and answers, by a forward pass in
// float64 that shares nothing with the engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "kernels/tensor.h"
#include "tests/testing/induction_text.h"
#include "tests/testing/reference_model.h"
#include "text/tokenizer.h"

namespace palimpsest::testing {
namespace {

using namespace induction;  // NOLINT: this file is about nothing else

double Product(const std::array<float, 32>& a, const std::array<float, 32>& b) {
  double sum = 0;
  for (size_t x = 0; x < a.size(); ++x) sum += a[x] * b[x];
  return sum;
}

uint32_t Minuses(const std::array<float, 32>& code) {
  uint32_t bits = 0;
  for (size_t x = 0; x < code.size(); ++x) bits |= (code[x] < 0 ? 1u : 0u) << x;
  return bits;
}

TEST(InductionCodeTest, ProductsOfDifferentCodesAreSmall) {
  EXPECT_EQ(Minuses(Code(1, 0)), 0x55aa55aa);
  EXPECT_EQ(Minuses(Code(3, 8)), 0x82b128e4);
  EXPECT_EQ(Minuses(Code(0, 3)), 0x12e22edeu);
  EXPECT_EQ(Minuses(Code(0, 7)), 0x630a93fau);
  std::vector<std::array<float, 32>> codes;
  for (int i = 0; i < 1024; ++i) codes.push_back(Code(i % 32, i / 32));
  for (size_t i = 0; i < codes.size(); ++i) {
    EXPECT_EQ(codes[i][0], 1) << i;
    for (size_t j = 0; j < i; ++j) ASSERT_LE(std::abs(Product(codes[i], codes[j])), 8) << i << " " << j;
  }
}

TEST(InductionCodeTest, ATagIsTheKeysCodeMovedByItsSlot) {
  for (int h = 0; h < 8; ++h) {
    for (const auto& [a, b] : {std::pair(7, 0), {19, 8}, {0, 0}}) {
      const auto moved = Code(a, b ^ h), sign = Code(0, h), key = Code(a, b);
      for (size_t x = 0; x < 32; ++x) EXPECT_EQ(moved[x], sign[x] * key[x]);
    }
  }
}

// BOS, fillers, two needles that differ in their last value only, a question for the first.
std::vector<int32_t> GoldenPrompt(int32_t asked) {
  std::vector<int32_t> ids = {kBos};
  for (int32_t t = 1; t < 64; ++t) ids.push_back(Filler(37 * t % kFillers));
  const std::array<int32_t, 7> first = {4, 8, 1, 5, 1, 6, 2}, second = {4, 8, 1, 5, 1, 6, 3};
  ids[20] = Key(5);
  ids[30] = Key(40);
  for (size_t i = 0; i < 7; ++i) {
    ids[21 + i] = Value(first[i]);
    ids[31 + i] = Value(second[i]);
  }
  ids[28] = ids[38] = kEnd;
  ids[63] = asked;
  return ids;
}

// Runs a prompt token by token and answers it.
class Reader {
 public:
  explicit Reader(Rounding rounding)
      : model_(std::make_shared<ReferenceModel>(*InductionModel({}), rounding)), cache_(model_->Empty()) {}

  void Read(std::span<const int32_t> ids) {
    for (const int32_t id : ids) {
      last_ = model_->Run(id, next_, next_, &cache_);
      ++next_;
    }
  }
  std::vector<int32_t> Answer() {
    std::vector<int32_t> answer;
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      answer.push_back(Best());
      Read(std::span(answer).last(1));
    }
    return answer;
  }
  double logit(int32_t id) const { return last_.logits[static_cast<size_t>(id)]; }
  int32_t Best() const {
    return static_cast<int32_t>(std::max_element(last_.logits.begin(), last_.logits.end()) -
                                last_.logits.begin());
  }
  // Weights of a query head of the newest token over all that is held.
  std::vector<double> Weights(int64_t layer, int64_t head) const {
    const auto& held = HeldBy(layer, head / (kHeads / kKvHeads));
    return model_->Attention(std::span(last_.queries[layer]).subspan(head * kHeadSize, kHeadSize), held,
                             held.size());
  }
  const std::vector<ReferenceModel::Held>& HeldBy(int64_t layer, int64_t kv_head) const {
    return cache_[static_cast<size_t>(layer * kKvHeads + kv_head)];
  }
  // Takes what one KV head of layer 2 holds of a token out of the cache.
  void Drop(int64_t kv_head, int32_t token) {
    auto& held = cache_[static_cast<size_t>(kKvHeads + kv_head)];
    std::erase_if(held, [&](const ReferenceModel::Held& h) { return h.token == token; });
  }

 private:
  std::shared_ptr<const ReferenceModel> model_;  // shared with copies
  ReferenceModel::Cache cache_;
  ReferenceModel::Seen last_;
  int32_t next_ = 0;
};

const std::vector<int32_t> kGoldenAnswer = {72, 76, 69, 73, 69, 74, 70, 1};

TEST(InductionModelTest, TheGoldenPromptIsAnsweredWithTheGoldenLogits) {
  for (const Rounding rounding : {Rounding::kNone, Rounding::kBf16}) {
    const double tolerance = rounding == Rounding::kNone ? 2e-3 : 0.08;  // of 59, in bf16
    Reader reader(rounding);
    const std::vector<int32_t> prompt = GoldenPrompt(Key(5));
    reader.Read(std::span(prompt).first(63));
    EXPECT_NEAR(reader.logit(kUnknown), 11.994, tolerance);
    EXPECT_NEAR(reader.logit(Filler(7)), 0, 1e-6);
    reader.Read(std::span(prompt).last(1));
    EXPECT_NEAR(reader.logit(72), 59.198, tolerance);
    EXPECT_NEAR(reader.logit(kUnknown), 11.948, tolerance);
    EXPECT_NEAR(reader.logit(130), 11.812, tolerance);
    EXPECT_NEAR(reader.logit(167), 11.812, tolerance);
    EXPECT_NEAR(reader.logit(kEnd), -3.983, tolerance);
    EXPECT_NEAR(reader.logit(Filler(0)), 0, 1e-6);
    EXPECT_EQ(reader.Answer(), kGoldenAnswer);
  }
}

TEST(InductionModelTest, KeysOfLayer2AreTheGoldenOnes) {
  Reader reader(Rounding::kNone);
  const std::vector<int32_t> prompt = GoldenPrompt(Key(5));
  reader.Read(std::span(prompt).first(22));
  const std::array<double, 8> golden[] = {
      {7.4359, -3.4701, -2.4786, 3.4701, 5.4530, -3.4701, -3.4701, 6.4445},
      {-3.4701, 5.4530, 5.4530, -4.4616, -3.4701, 1.4872, 4.4616, -5.4530}};
  for (int64_t g = 0; g < kKvHeads; ++g) {
    const std::vector<double>& key = reader.HeldBy(1, g).back().key;
    for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(key[32 + i], golden[g][i], 2e-4) << g << " " << i;
    for (size_t i = 28; i < 32; ++i) EXPECT_EQ(key[i], 0) << g << " " << i;
  }
}

// Each head of layer 1 sees one token, and BOS where there is none so far back.
TEST(InductionModelTest, HeadsOfLayer1LookBackOneToEight) {
  Reader reader(Rounding::kBf16);
  const std::vector<int32_t> prompt = GoldenPrompt(Key(5));
  for (size_t t = 0; t < prompt.size(); ++t) {
    reader.Read(std::span(prompt).subspan(t, 1));
    for (size_t head = 0; head < kHeads; ++head) {
      const size_t seen = t > head + 1 ? t - head - 1 : 0;
      EXPECT_GT(reader.Weights(0, static_cast<int64_t>(head))[seen], 1 - 1e-9) << t << " " << head;
    }
  }
}

// The least that a wrong distance loses against the right one, over all distances to 2^20: cosines of the
// weights as they are rounded. One in 2^20 wrong ones then still has e^-50 in all.
TEST(InductionModelTest, NoWrongDistanceIsNearTheRightOne) {
  const auto file = InductionModel({});
  const GgufTensor& q = **file->Tensor("blk.0.attn_q.weight");
  const auto weight = [&](int64_t row) {
    return Bf16ToFloat(reinterpret_cast<const Bf16*>(q.bytes.data())[row * kHidden]);
  };
  for (const int64_t head : {int64_t{0}, int64_t{7}}) {
    std::array<double, 12> size{}, phase{};
    double at_peak = 0;
    const auto logit = [&](double distance) {
      double sum = 0;
      for (size_t i = 0; i < size.size(); ++i)
        sum += size[i] * std::cos(std::ldexp(distance, -2 * static_cast<int>(i)) - phase[i]);
      return sum;
    };
    for (size_t i = 0; i < size.size(); ++i) {
      const double a = weight(head * kHeadSize + 2 * static_cast<int64_t>(i)),
                   b = weight(head * kHeadSize + 2 * static_cast<int64_t>(i) + 1);
      size[i] = std::hypot(a, b) * 64 * 16 / 8;
      phase[i] = std::atan2(-b, a);
    }
    at_peak = logit(static_cast<double>(head + 1));
    EXPECT_NEAR(at_peak, 864, 4);
    double worst = 0;
    for (int64_t distance = 0; distance < 1 << 20; ++distance) {
      if (distance != head + 1) worst = std::max(worst, logit(static_cast<double>(distance)));
    }
    EXPECT_GT(at_peak - worst, 64) << head;
    EXPECT_GT(at_peak - 828, 32) << head;
  }
}

TEST(InductionModelTest, AnAbsentKeyGivesUnknown) {
  Reader reader(Rounding::kBf16);
  reader.Read(GoldenPrompt(Key(17)));
  EXPECT_EQ(reader.Answer(), std::vector<int32_t>(kSlots, kUnknown));
}

// The law, slot by slot: without the one entry it is UNKNOWN and the others are right; the same entry of the
// other KV head and its neighbours are not needed.
TEST(InductionModelTest, EachSlotHangsOnOneEntry) {
  const std::vector<int32_t> prompt = GoldenPrompt(Key(5));
  Reader begun(Rounding::kBf16);
  begun.Read(prompt);
  for (int32_t slot = 1; slot <= kSlots; ++slot) {
    Reader reader = begun, other = begun;
    reader.Drop((slot - 1) % 2, 20 + slot);
    other.Drop(slot % 2, 20 + slot);
    // The question's own first answer was made before anything was dropped.
    std::vector<int32_t> expected = kGoldenAnswer;
    if (slot > 1) expected[static_cast<size_t>(slot - 1)] = kUnknown;
    EXPECT_EQ(reader.Answer(), expected) << "slot " << slot;
    EXPECT_EQ(other.Answer(), kGoldenAnswer) << "slot " << slot;
  }
  Reader reader(Rounding::kBf16);
  reader.Read(std::span(prompt).first(63));
  reader.Drop(0, 21);
  reader.Read(std::span(prompt).last(1));
  EXPECT_EQ(reader.Best(), kUnknown);
}

// From KEY, the heads of a KV head look at all of its slots but END: what votes and recall go by.
TEST(InductionModelTest, ScoutsLookAtTheWholeNeedle) {
  Reader reader(Rounding::kBf16);
  reader.Read(GoldenPrompt(Key(5)));
  const std::map<int64_t, size_t> slot_of = {{0, 1}, {1, 3}, {2, 5}, {3, 7}, {5, 2}, {6, 4}, {7, 6}};
  for (const auto& [head, slot] : slot_of) {
    EXPECT_GT(reader.Weights(1, head)[20 + slot], 1 - 1e-9) << head;
  }
  EXPECT_GT(reader.Weights(1, 4)[0], 1 - 1e-9);  // END's head sees BOS
}

TEST(InductionTextTest, TextIsReadAsTheTokensItWasMadeOf) {
  const auto file = InductionModel({});
  const auto tokenizer = Tokenizer::FromGguf(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> ids = {kParagraph, kEnd, kUnknown};  // signs take line ends behind them
  for (int32_t id = Key(0); id < kVocabulary; ++id) ids.push_back(id);
  EXPECT_EQ(*(*tokenizer)->Encode(TextOf(ids), Tokenizer::Special::kAsText), ids);
  const std::vector<Needle> needles = SpreadNeedles(3000, 63, 4);
  const std::vector<int32_t> document = Document(3000, needles, 4);
  EXPECT_EQ(*(*tokenizer)->Encode(TextOf(document), Tokenizer::Special::kAsText), document);
  EXPECT_EQ((*tokenizer)->Decode(document, false), TextOf(document));
  EXPECT_EQ(*(*tokenizer)->Encode("<s>", Tokenizer::Special::kParse), std::vector<int32_t>{kBos});
  EXPECT_TRUE((*tokenizer)->IsEnd(kEnd));
}

TEST(InductionTextTest, EveryKeyOfADocumentIsThereOnce) {
  const std::vector<Needle> needles = SpreadNeedles(3000, 63, 4);
  const std::vector<int32_t> document = Document(3000, needles, 4);
  EXPECT_EQ(needles.front().first, 0);
  EXPECT_EQ(needles.back().first, 3000 - kQuietTail - kNeedleTokens);
  for (const Needle& needle : needles) {
    EXPECT_EQ(std::count(document.begin(), document.end(), needle.key), 1);
    EXPECT_EQ(document[static_cast<size_t>(needle.first)], needle.key);
    EXPECT_EQ(document[static_cast<size_t>(needle.first + kSlots)], kEnd);
  }
  EXPECT_EQ(std::count(document.begin(), document.end(), Key(63)), 0);
}

}  // namespace
}  // namespace palimpsest::testing
