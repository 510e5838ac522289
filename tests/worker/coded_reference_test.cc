// Keys and values in 2 bits against float64: the answer is that of plain loops whose caches hold, of each
// group of 32 numbers, the nearest thirds between its least and its largest (compression_reference.h).
//
// What lies near the middle between two thirds goes to either by the last bit of its bf16, which moves it by
// a third of its group's span: so these loops round to bf16 where the engine does.
#include "tests/testing/reference.h"
#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

// Of an answer's log-probabilities. A number that went to another third moves some of them further than
// roundings do: measured on all instruction sets, a mean of 0.02 and at most 0.34.
constexpr double kMeanBound = 0.04, kMostBound = 0.6;

class CodedReferenceTest : public CompressionReferenceTest {
 protected:
  CodedReferenceTest() : CompressionReferenceTest(Rounding::kBf16) {}
  // Number `at(i)` of 32, or of as many as there are.
  template <typename At>
  static void CodeGroup(size_t count, const At& at) {
    double least = at(0), most = least;
    for (size_t i = 0; i < count; ++i) {
      least = std::min(least, at(i));
      most = std::max(most, at(i));
    }
    const double step = reference::RoundToBf16((most - least) / 3);
    for (size_t i = 0; i < count && step > 0; ++i) {
      const double code = std::min(3.0, std::nearbyint((at(i) - least) / step));
      at(i) = reference::RoundToBf16(least + code * step);
    }
  }
  static void CodeTile(std::span<ReferenceModel::Held> tile) {
    const size_t size = tile[0].value.size();
    for (size_t first = 0; first < tile.size(); first += 32) {
      for (size_t d = 0; d < size; ++d)
        CodeGroup(32, [&](size_t i) -> double& { return tile[first + i].rotated[d]; });
    }
    for (ReferenceModel::Held& held : tile) {
      for (size_t d = 0; d < size; d += 32)
        CodeGroup(std::min<size_t>(32, size - d), [&](size_t i) -> double& { return held.value[d + i]; });
    }
  }
  // Heads with twice the residual exact, until they have not.
  void CodeOldest() {
    coded_.resize(cache_.size(), 0);
    const size_t residual = static_cast<size_t>(spec_.residual_tokens());
    for (size_t head = 0; head < cache_.size(); ++head) {
      for (; cache_[head].size() - coded_[head] >= 2 * residual; coded_[head] += residual) {
        for (size_t first = 0; first < residual; first += 64)
          CodeTile(std::span(cache_[head]).subspan(coded_[head] + first, 64));
      }
    }
  }
  void ReadContext() {
    coded_.clear();
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    if (!answer_.outcome.kept.empty())
      KeepAsTheEngine(answer_.outcome.kept, [](int32_t token, int64_t) { return token; });
    CodeOldest();
  }
  // The question whole, then each token of the answer behind what goes to 2 bits before it.
  void ExpectAnswer() {
    double sum = 0, most = 0;
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      if (i >= prompt_) CodeOldest();
      const std::vector<double> logits = Run(i, i).logits;
      if (i + 1 < prompt_) continue;
      const double expected = -NegativeLogLikelihood(logits, tokens_[static_cast<size_t>(i) + 1]);
      const double error =
          std::abs(expected - answer_.log_probabilities[static_cast<size_t>(i + 1 - prompt_)]);
      sum += error;
      most = std::max(most, error);
    }
    const double mean = sum / static_cast<double>(kAnswer);
    std::cout << PolicyText(spec_) << ": error of log-probabilities " << mean << ", at most " << most << "\n";
    EXPECT_LE(mean, kMeanBound);
    EXPECT_LE(most, kMostBound);
  }
  std::vector<size_t> coded_;  // tokens of each head that are in 2 bits
};

TEST_F(CodedReferenceTest, TheAnswerIsThatOfThirds) {
  for (const char* policy : {"full:kv=kivi2,residual=64", "full:kv=kivi2,residual=128",
                             "snapkv:budget=200,window=48,kv=kivi2,residual=64",
                             "adakv:budget=170,window=20,floor=0,kv=kivi2,residual=64"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    ReadContext();
    const size_t before = coded_[0];
    ExpectAnswer();
    EXPECT_GT(coded_[0], before) << "some of the answer's time was in 2 bits";
  }
}

// Or the test above proves nothing: against the exact cache the same answer is far off.
TEST_F(CodedReferenceTest, ExactNumbersGiveAnotherAnswer) {
  const auto logits_with = [&](const char* policy) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), 1));
    return LogitsOf(answer_.outcome);
  };
  const std::vector<float> exact = logits_with("full"), coded = logits_with("full:kv=kivi2,residual=64");
  double squares = 0, worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    squares += static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
    worst = std::max(worst, std::abs(static_cast<double>(exact[i]) - static_cast<double>(coded[i])));
  }
  EXPECT_GT(worst / std::sqrt(squares / static_cast<double>(exact.size())), 4 * kLogitBound);
}

}  // namespace
}  // namespace palimpsest::testing
