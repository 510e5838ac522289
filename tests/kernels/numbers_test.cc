// Numbers under every operation: bf16 conversion, exp2 and the rotation table.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/rope.h"
#include "proto/base/rng.h"
#include "tests/testing/reference.h"

namespace palimpsest {
namespace {

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
bool IsSubnormal(float x) { return x != 0 && std::abs(x) < 0x1p-126f; }

// Every upper half with lower halves around the ties, then random bits.
std::vector<float> InterestingFloats() {
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(FromBits(upper << 16 | lower));
    }
  }
  RngSequence rng{Rng(11)};
  for (int i = 0; i < 100000; ++i) x.push_back(FromBits(static_cast<uint32_t>(rng.Next())));
  while (x.size() % 16 != 0) x.push_back(0.0f);
  return x;
}

TEST(Bf16Test, RoundsToNearestWithTiesToEven) {
  for (const float x : InterestingFloats()) {
    const float rounded = Bf16ToFloat(FloatToBf16(x));
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(rounded));
      continue;
    }
    const double want = reference::RoundToBf16(static_cast<double>(x));
    ASSERT_EQ(static_cast<double>(rounded), want) << std::hexfloat << x;
    ASSERT_EQ(std::signbit(rounded), std::signbit(x)) << std::hexfloat << x;
  }
}

TEST(Bf16Test, WideningIsExact) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float wide = Bf16ToFloat(static_cast<Bf16>(bits));
    EXPECT_EQ(std::bit_cast<uint32_t>(wide), bits << 16);
  }
}

class IsaKernelsTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string& isa = GetParam();
    if (isa == "avx512" && !cpu::HasAvx512()) {
      GTEST_SKIP() << "this processor lacks " << cpu::MissingForAvx512();
    }
    if (isa == "avx2" && !cpu::HasAvx2()) GTEST_SKIP() << "this processor lacks AVX2 or FMA";
    kernels_ = isa == "avx512" ? &cpu::Avx512Kernels()
               : isa == "avx2" ? &cpu::Avx2Kernels()
                               : &cpu::PortableKernels();
  }
  // 2^x - (x <= 0) as the kernels compute it: a state of weight 0 and maximum 0 joined by one of weight 1 and
  // maximum x weighs 0 * 1 + 1 * 2^x.
  float Exp2(float x) const {
    float m = 0, m_b = x;
    alignas(64) float l[16] = {}, o[64] = {}, l_b[16], o_b[64] = {};
    std::fill_n(l_b, 16, 1.0f);
    kernels_->merge(1, 64, &m, l, o, &m_b, l_b, o_b);
    for (const float lane : l) EXPECT_EQ(lane, l[0]);
    return l[0];
  }
  const cpu::IsaKernels* kernels_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Isas, IsaKernelsTest, ::testing::Values("avx512", "avx2", "portable"),
                         [](const auto& isa) { return isa.param; });

// AVX-512 converts in hardware, which takes subnormals for zero and quiets NaN, as FloatToBf16 does. The
// other paths never meet either kind and leave both open.
TEST_P(IsaKernelsTest, RoundAgreesWithFloatToBf16) {
  const std::vector<float> x = InterestingFloats();
  std::vector<uint16_t> rounded(x.size());
  kernels_->round(x.data(), static_cast<int64_t>(x.size()), rounded.data());
  const bool everything = GetParam() == "avx512";
  for (size_t i = 0; i < x.size(); ++i) {
    if (!everything && (std::isnan(x[i]) || IsSubnormal(x[i]))) continue;
    ASSERT_EQ(rounded[i], FloatToBf16(x[i])) << std::hexfloat << x[i];
  }
}

TEST_P(IsaKernelsTest, WidenInvertsRound) {
  std::vector<uint16_t> narrow(0x10000);
  for (size_t i = 0; i < narrow.size(); ++i) narrow[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(narrow.size());
  kernels_->widen(narrow.data(), static_cast<int64_t>(narrow.size()), wide.data());
  for (size_t i = 0; i < wide.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), static_cast<uint32_t>(i) << 16);
  }
}

TEST_P(IsaKernelsTest, ExpOfNothingIsOneAndOfVeryLittleIsZero) {
  EXPECT_EQ(Exp2(0.0f), 1.0f);
  EXPECT_EQ(Exp2(-0.0f), 1.0f);
  for (const float x : {-126.5f, -127.0f, -1000.0f, -3e38f, cpu::kEmptyMax, -INFINITY})
    EXPECT_EQ(Exp2(x), 0.0f);
  for (int n = 0; n >= -126; --n) EXPECT_EQ(Exp2(static_cast<float>(n)), std::ldexp(1.0f, n));
}

// A degree 5 polynomial with an error of 2^-23.4 on [-1/2, 1/2] and its last rounding, 2^-24; the steps
// before weigh less: 2^-22 in all.
TEST_P(IsaKernelsTest, ExpIsAccurate) {
  RngSequence rng{Rng(12)};
  double worst = 0;
  const auto check = [&](float x) {
    const double want = std::exp2(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(Exp2(x)) - want) / want);
  };
  for (float x = 0; x >= -126.0f; x -= 0x1p-7f) check(x);
  for (int i = 0; i < 50000; ++i) check(static_cast<float>(-2.0 * rng.Uniform()));
  for (int i = 0; i < 50000; ++i) check(static_cast<float>(-126.0 * rng.Uniform()));
  EXPECT_LE(worst, 0x1p-22);
}

// An empty state is the unit of merge, on both sides, bit for bit.
TEST_P(IsaKernelsTest, MergingNothingChangesNothing) {
  RngSequence rng{Rng(13)};
  for (const float top : {-200.0f, 0.0f, 3.7f, 1e4f}) {
    float m[1], m_b[1], l[16], l_b[16], o[128], o_b[128];
    for (const bool empty_first : {false, true}) {
      const auto fill = [&](bool empty, float* m_of, float* l_of, float* o_of) {
        *m_of = empty ? cpu::kEmptyMax : top;
        for (int i = 0; i < 16; ++i) l_of[i] = empty ? 0.0f : static_cast<float>(rng.Uniform());
        for (int i = 0; i < 128; ++i) o_of[i] = empty ? 0.0f : static_cast<float>(rng.Uniform() - 0.5);
      };
      fill(empty_first, m, l, o);
      fill(!empty_first, m_b, l_b, o_b);
      const std::vector<float> want_l(empty_first ? l_b : l, (empty_first ? l_b : l) + 16);
      const std::vector<float> want_o(empty_first ? o_b : o, (empty_first ? o_b : o) + 128);
      kernels_->merge(1, 128, m, l, o, m_b, l_b, o_b);
      EXPECT_EQ(m[0], top);
      EXPECT_EQ(std::vector<float>(l, l + 16), want_l);
      EXPECT_EQ(std::vector<float>(o, o + 128), want_o);
    }
  }
}

// One pair, one radian a position: a key that stands third is turned once, from rest to its slot or from its
// place to it; and a place apart is a place back.
TEST(RopeTableTest, ASlotIsAsGoodAsTurningBack) {
  const reference::Rope rope = {.head_size = 2, .rope_size = 2, .theta = 1e4, .factors = {}};
  const std::vector<double> rest = {1, 0};
  const std::vector<double> at_3 = reference::Rotate(rope, 3, rest),
                            slot_2 = reference::Rotate(rope, 2, rest);
  EXPECT_NEAR(at_3[0], -0.989992, 5e-7);
  EXPECT_NEAR(at_3[1], 0.141120, 5e-7);
  EXPECT_NEAR(slot_2[0], -0.416147, 5e-7);
  EXPECT_NEAR(slot_2[1], 0.909297, 5e-7);
  const std::vector<double> back = reference::Rotate(rope, -1, at_3);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(back[i], slot_2[i], 1e-12);
}

// The angle is exact to 2^-53 of itself, cos and sin are rounded once to float.
TEST(RopeTableTest, MatchesTheReferenceAtEveryDistance) {
  const std::vector<double> factors = {1.0, 2.0, 1.5, 8.0};
  for (const int64_t head_size : {16, 32, 64, 80, 128}) {
    const reference::Rope rope = {.head_size = head_size,
                                  .rope_size = head_size == 80 ? 32 : head_size,
                                  .theta = 1e5,
                                  .factors = factors};
    const RopeTable table(head_size, rope.rope_size, rope.theta, rope.factors, 40);
    std::vector<float> scratch(static_cast<size_t>(table.row_floats()));
    for (const int64_t position : {0, 1, 39, 40, 41, 1000, 131072, 4194304}) {
      const float* row = table.Row(position, scratch.data());
      for (int64_t i = 0; i < head_size; i += 2) {
        // Turning (1, 0) reads off the cosine and the sine of the pair.
        std::vector<double> unit(static_cast<size_t>(head_size), 0.0);
        unit[static_cast<size_t>(i)] = 1.0;
        const std::vector<double> turned = reference::Rotate(rope, position, unit);
        const double c = turned[static_cast<size_t>(i)], s = turned[static_cast<size_t>(i + 1)];
        const double bound = 0x1p-24 + static_cast<double>(position) * 0x1p-50;
        EXPECT_NEAR(static_cast<double>(row[i]), c, bound);
        EXPECT_NEAR(static_cast<double>(row[head_size + i + 1]), s, bound);
        EXPECT_EQ(row[i + 1], row[i]);
        EXPECT_EQ(row[head_size + i], -row[head_size + i + 1]);
      }
    }
  }
}

TEST(RopeTableTest, CachedRowsHaveTheBitsOfComputedOnes) {
  const RopeTable cached(64, 64, 1e4, {}, 100), computed(64, 64, 1e4, {}, 0);
  std::vector<float> scratch(128), unused(128);
  for (int64_t position = 0; position < 100; ++position) {
    const float* a = cached.Row(position, unused.data());
    const float* b = computed.Row(position, scratch.data());
    EXPECT_NE(a, unused.data());
    EXPECT_EQ(std::vector<float>(a, a + 128), std::vector<float>(b, b + 128));
  }
}

}  // namespace
}  // namespace palimpsest
