// What a policy left of a document comes back from a tier as it was; what is no view of this model is
// refused, whatever its counts say.
#include "worker/compression/view_format.h"

#include <gtest/gtest.h>

#include "proto/base/rng.h"

namespace palimpsest {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 3, .head_size = 16};

View RandomView(uint64_t seed) {
  RngSequence rng{Rng(seed)};
  View view;
  view.parent = BlockId{Sha256(std::to_string(seed))};
  for (uint64_t i = rng.Below(50); i > 0; --i) view.losses.push_back(static_cast<float>(rng.Uniform()));
  for (int64_t i = 0; i < kShape.tiles(); ++i) {
    RestHead& head = view.heads.emplace_back();
    int32_t token = 0;
    for (uint64_t n = rng.Below(20); n > 0; --n) {
      token += 1 + static_cast<int32_t>(rng.Below(9));
      head.tokens.push_back(token);
      if (seed % 2 == 0) head.scores.push_back(static_cast<float>(rng.Uniform()));
      for (uint64_t row = 0; row < seed % 3; ++row) head.sums.push_back(static_cast<float>(rng.Uniform()));
      for (int64_t d = 0; d < 2 * kShape.head_size; ++d)
        head.rest.push_back(static_cast<Bf16>(rng.Below(65536)));
    }
    for (uint64_t n = head.tokens.empty() ? rng.Below(9) : 0; n > 0; --n)
      head.scores.push_back(static_cast<float>(n));
  }
  return view;
}

std::vector<uint8_t> Bytes(const View& view) {
  std::vector<uint8_t> bytes;
  AppendView(view, kShape.head_size, &bytes);
  return bytes;
}

void ExpectSame(const View& a, const View& b) {
  EXPECT_EQ(a.parent, b.parent);
  EXPECT_EQ(a.losses, b.losses);
  ASSERT_EQ(a.heads.size(), b.heads.size());
  for (size_t i = 0; i < a.heads.size(); ++i) {
    EXPECT_EQ(a.heads[i].tokens, b.heads[i].tokens);
    EXPECT_EQ(a.heads[i].scores, b.heads[i].scores);
    EXPECT_EQ(a.heads[i].sums, b.heads[i].sums);
    EXPECT_EQ(a.heads[i].rest, b.heads[i].rest);
  }
}

TEST(ViewFormatTest, AViewComesBackAsItWas) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const View view = RandomView(seed);
    const auto read = ParseView(kShape, Bytes(view));
    ASSERT_TRUE(read.ok()) << read.status();
    ExpectSame(view, *read);
  }
}

// What lies on disks. A change here makes every stored view unreadable: raise kPicksVersion.
TEST(ViewFormatTest, TheBytesOfVersionTwo) {
  ASSERT_EQ(kPicksVersion, 2);
  const std::vector<uint8_t> bytes = Bytes(RandomView(5));
  EXPECT_EQ(bytes.size(), 2412u);
  EXPECT_EQ(Sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}).ToHex(),
            "081c34bf4fd55cc3c75c937857c5b0bf24b221eef5fdf741ea23dd637fb6b80a");
}

TEST(ViewFormatTest, EveryCutAndEveryAdditionIsRefused) {
  std::vector<uint8_t> bytes = Bytes(RandomView(4));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseView(kShape, std::span(bytes).first(size)).ok()) << size;
  }
  bytes.push_back(0);
  EXPECT_FALSE(ParseView(kShape, bytes).ok());
}

TEST(ViewFormatTest, AnotherShapeOrVersionIsRefused) {
  std::vector<uint8_t> bytes = Bytes(RandomView(4));
  EXPECT_FALSE(ParseView({.layers = 3, .kv_heads = 3, .head_size = 16}, bytes).ok());
  EXPECT_FALSE(ParseView({.layers = 2, .kv_heads = 3, .head_size = 32}, bytes).ok());
  bytes[0] ^= 2;
  EXPECT_FALSE(ParseView(kShape, bytes).ok());
}

// Any bytes: refused, or a view whose every count was there. Counts near 2^32 allocate nothing.
TEST(ViewFormatTest, NoBytesAreBelievedBeforeTheyAreCounted) {
  RngSequence rng{Rng(7)};
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint8_t> bytes = Bytes(RandomView(rng.Below(50)));
    for (uint64_t flips = 1 + rng.Below(4); flips > 0; --flips) {
      bytes[rng.Below(rng.Below(3) == 0 ? bytes.size() : std::min<uint64_t>(bytes.size(), 300))] =
          static_cast<uint8_t>(rng.Below(256));
    }
    const auto view = ParseView(kShape, bytes);
    if (!view.ok()) continue;
    ++accepted;
    ASSERT_EQ(view->heads.size(), 6u);
    for (const RestHead& head : view->heads) {
      ASSERT_EQ(head.rest.size(), head.tokens.size() * 2 * 16);
      ASSERT_TRUE(head.scores.empty() || head.tokens.empty() || head.scores.size() == head.tokens.size());
      ASSERT_TRUE(head.tokens.empty() ? head.sums.empty() : head.sums.size() % head.tokens.size() == 0);
      ASSERT_TRUE(std::is_sorted(head.tokens.begin(), head.tokens.end()));
    }
  }
  EXPECT_GT(accepted, 100) << "numbers may be any";
}

}  // namespace
}  // namespace palimpsest
