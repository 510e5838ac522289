// The contract of MatchKeys: which of some keys each of others is most like.
#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "tests/kernels/backend_fixture.h"

namespace palimpsest {
namespace {

class MatchContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(MatchContractTest);

using Keys = std::vector<std::vector<Bf16>>;

Keys RandomKeys(RngSequence& rng, int64_t count, int64_t head_size) {
  Keys keys(static_cast<size_t>(count));
  for (auto& key : keys) {
    const double scale = std::exp(8 * rng.Uniform() - 4);
    for (int64_t i = 0; i < head_size; ++i) key.push_back(FloatToBf16(RandomFloat(rng, scale)));
  }
  return keys;
}

Keys KeysOf(const std::vector<std::vector<float>>& rows) {
  Keys keys;
  for (const std::vector<float>& row : rows) {
    keys.emplace_back(16, Bf16{0});
    for (size_t i = 0; i < row.size(); ++i) keys.back()[i] = FloatToBf16(row[i]);
  }
  return keys;
}

bool IsLikeNone(const std::vector<Bf16>& key) {
  bool zero = true;
  for (const Bf16 x : key) {
    if (!std::isfinite(Bf16ToFloat(x))) return true;
    zero = zero && Bf16ToFloat(x) == 0;
  }
  return zero;
}

double Cosine(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  if (IsLikeNone(a) || IsLikeNone(b)) return 0;
  double dot = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(Bf16ToFloat(a[i])), y = static_cast<double>(Bf16ToFloat(b[i]));
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return dot / std::sqrt(aa * bb);
}

struct Matches {
  std::vector<int32_t> best;
  std::vector<float> similarity;
  bool operator==(const Matches&) const = default;
};

std::vector<Matches> Match(Backend& backend, int64_t head_size,
                           const std::vector<std::pair<Keys, Keys>>& heads) {  // sources, targets
  std::vector<Matches> matches;
  std::vector<std::vector<const Bf16*>> pointers;
  for (const auto& [sources, targets] : heads) {
    matches.push_back({std::vector<int32_t>(sources.size(), -1), std::vector<float>(sources.size(), 7.0f)});
    for (const Keys* keys : {&sources, &targets}) {
      pointers.emplace_back();
      for (const auto& key : *keys) pointers.back().push_back(key.data());
    }
  }
  std::vector<MatchHead> args;
  for (size_t h = 0; h < heads.size(); ++h) {
    args.push_back({.sources = pointers[2 * h],
                    .targets = pointers[2 * h + 1],
                    .best = matches[h].best.data(),
                    .similarity = matches[h].similarity.data()});
  }
  backend.MatchKeys({.head_size = head_size, .heads = args});
  return matches;
}

// Products of bf16 are exact; D additions round by 2^-24 of at most 1 (Cauchy), and so do the two lengths.
double BoundOf(int64_t head_size) { return (static_cast<double>(head_size) + 8) * 0x1p-24; }

TEST_P(MatchContractTest, TheBestIsTheBestOfTheReference) {
  RngSequence rng{Rng(4000)};
  for (const int64_t head_size : {16, 64, 80, 128}) {
    std::vector<std::pair<Keys, Keys>> heads;
    // Around the borders of panels, of rows together and of tasks.
    for (const auto& [sources, targets] :
         {std::pair{1, 1}, {5, 63}, {6, 64}, {7, 65}, {200, 300}, {1537, 130}}) {
      heads.emplace_back(RandomKeys(rng, sources, head_size), RandomKeys(rng, targets, head_size));
    }
    const std::vector<Matches> matches = Match(*backend_, head_size, heads);
    for (size_t h = 0; h < heads.size(); ++h) {
      const auto& [sources, targets] = heads[h];
      for (size_t i = 0; i < sources.size(); ++i) {
        double top = -2;
        for (const auto& target : targets) top = std::max(top, Cosine(sources[i], target));
        const double found = Cosine(sources[i], targets[static_cast<size_t>(matches[h].best[i])]);
        ASSERT_NEAR(found, top, 2 * BoundOf(head_size)) << "head " << h << ", source " << i;
        ASSERT_NEAR(matches[h].similarity[i], found, BoundOf(head_size)) << "head " << h << ", source " << i;
      }
    }
  }
}

TEST_P(MatchContractTest, OfEqualsTheFirst) {
  RngSequence rng{Rng(4100)};
  Keys targets = RandomKeys(rng, 200, 64), sources = RandomKeys(rng, 40, 64);
  for (size_t i = 0; i < sources.size(); ++i) {
    targets[i + 30] = targets[i + 100] = targets[i + 160] = sources[i];  // in one panel, and in others
  }
  const Matches matches = Match(*backend_, 64, {{sources, targets}})[0];
  for (size_t i = 0; i < sources.size(); ++i) {
    EXPECT_EQ(matches.best[i], static_cast<int32_t>(i) + 30);
    EXPECT_NEAR(matches.similarity[i], 1, BoundOf(64));
  }
}

TEST_P(MatchContractTest, TheNearestOfTheGoldenExample) {
  const Matches matches =
      Match(*backend_, 16, {{KeysOf({{3, 0}, {2, 1}, {0, 2}}), KeysOf({{1, 0}, {0, 1}})}})[0];
  EXPECT_EQ(matches.best, (std::vector<int32_t>{0, 0, 1}));
  EXPECT_NEAR(matches.similarity[0], 1, 1e-6);
  EXPECT_NEAR(matches.similarity[1], 0.894427, 1e-6);
  EXPECT_NEAR(matches.similarity[2], 1, 1e-6);
}

TEST_P(MatchContractTest, KeysWithoutLengthAndWithoutNumbersAreLikeNone) {
  Keys odd = KeysOf({{0, 0}, {1, 0}, {1, 0}, {1, 0}});
  odd[1][3] = 0x7fc0;
  odd[2][3] = 0x7f80;
  odd[3][3] = 0xff80;
  const Keys plain = KeysOf({{-1, 0}, {0, 1}, {1, 1}});
  const std::vector<Matches> matches = Match(*backend_, 16, {{odd, plain}, {plain, odd}});
  for (size_t i = 0; i < odd.size(); ++i) {
    EXPECT_EQ(matches[0].best[i], 0);
    EXPECT_EQ(matches[0].similarity[i], 0.0f);
  }
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(matches[1].best[i], 0);
    EXPECT_EQ(matches[1].similarity[i], 0.0f);
  }
}

TEST_P(MatchContractTest, HugeAndTinyKeysGiveNumbers) {
  Keys keys(4, std::vector<Bf16>(64));
  const Bf16 fill[] = {0x7f7f, 0xff7f, 0x0080, 0x8080};  // the largest and the smallest normal, either sign
  for (size_t i = 0; i < keys.size(); ++i) std::fill(keys[i].begin(), keys[i].end(), fill[i]);
  for (size_t i = 0; i < 32; ++i) keys[1][2 * i] = 0x7f7f;  // products that cancel, each beyond what there is
  const Matches matches = Match(*backend_, 64, {{keys, keys}})[0];
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_TRUE(matches.similarity[i] >= -1 && matches.similarity[i] <= 1) << matches.similarity[i];
    EXPECT_TRUE(matches.best[i] >= 0 && matches.best[i] < 4) << matches.best[i];
  }
}

// The most memory that this process ever had, since it was told to forget; 0: this system does not say.
int64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib << 10;
  }
  return 0;
}
bool ForgetPeak() { return static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush); }

// 4,096 keys by 4,096 are 64 MiB of similarities, of which each key's best is wanted.
TEST_P(MatchContractTest, AllPairsAreNeverHeldAtOnce) {
  RngSequence rng{Rng(47)};
  const std::vector<std::pair<Keys, Keys>> heads = {{RandomKeys(rng, 4096, 16), RandomKeys(rng, 4096, 16)}};
  Match(*backend_, 16, {{RandomKeys(rng, 64, 16), RandomKeys(rng, 64, 16)}});
  if (!ForgetPeak() || PeakBytes() == 0) GTEST_SKIP() << "this system does not tell the peak of a process";
  const int64_t before = PeakBytes();
  const std::vector<Matches> matches = Match(*backend_, 16, heads);
  EXPECT_LT(PeakBytes() - before, 16 << 20);
  EXPECT_EQ(matches[0].best.size(), 4096u);
}

TEST_P(MatchContractTest, MatchesDoNotDependOnTheThreadsOrTheHeadsBeside) {
  RngSequence rng{Rng(4200)};
  std::vector<std::pair<Keys, Keys>> heads;
  for (int h = 0; h < 3; ++h) heads.emplace_back(RandomKeys(rng, 900, 64), RandomKeys(rng, 150, 64));
  heads.emplace_back(Keys{}, RandomKeys(rng, 5, 64));  // nothing goes
  const std::vector<Matches> together = Match(*backend_, 64, heads);
  for (const int threads : {1, 3}) {
    auto other = MakeTestBackend(threads);
    ASSERT_TRUE(other.ok());
    EXPECT_EQ(Match(**other, 64, heads), together);
    for (size_t h = 0; h < heads.size(); ++h) EXPECT_EQ(Match(**other, 64, {heads[h]})[0], together[h]);
  }
}

}  // namespace
}  // namespace palimpsest
