#include "storage/data_key.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "proto/base/clock.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes FromHex(std::string_view hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

template <size_t kSize>
std::array<uint8_t, kSize> ArrayOf(const Bytes& bytes) {
  std::array<uint8_t, kSize> array{};
  PALIMPSEST_CHECK(bytes.size() == kSize);
  std::copy(bytes.begin(), bytes.end(), array.begin());
  return array;
}

std::shared_ptr<DataKey> Key(uint8_t first = 1, std::optional<DataKey::Nonce> nonce = std::nullopt) {
  std::array<uint8_t, 32> key;
  std::iota(key.begin(), key.end(), first);
  return DataKey::FromBytes(key, 7, nonce);
}

// Test cases 13 to 16, those with a key of 256 bits, of "The Galois/Counter Mode of Operation (GCM)", McGrew
// and Viega, submitted to NIST.
struct GcmCase {
  const char *key, *nonce, *associated, *plain, *cipher, *tag;
};
constexpr char kZeroKey[] = "0000000000000000000000000000000000000000000000000000000000000000";
constexpr char kKey[] = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
const GcmCase kGcmCases[] = {
    {kZeroKey, "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {kZeroKey, "000000000000000000000000", "", "00000000000000000000000000000000",
     "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {kKey, "cafebabefacedbaddecaf888", "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {kKey, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

TEST(DataKeyTest, EncryptsAsNistsVectorsSay) {
  for (const GcmCase& c : kGcmCases) {
    const auto key = DataKey::FromBytes(ArrayOf<32>(FromHex(c.key)), 1);
    const auto nonce = ArrayOf<12>(FromHex(c.nonce));
    const Bytes associated = FromHex(c.associated), plain = FromHex(c.plain);
    Bytes bytes = plain;
    const DataKey::Tag tag = key->Encrypt(nonce, associated, bytes);
    EXPECT_EQ(bytes, FromHex(c.cipher));
    EXPECT_EQ(Bytes(tag.begin(), tag.end()), FromHex(c.tag));
    EXPECT_TRUE(key->Decrypt(nonce, associated, tag, bytes, bytes)) << "in place";
    EXPECT_EQ(bytes, plain);
  }
}

TEST(DataKeyTest, AnyChangeIsNoticedAndNothingIsShown) {
  const auto key = Key();
  const DataKey::Nonce nonce = key->NextNonce();
  const Bytes associated(112, 3), plain(100, 5);
  Bytes cipher = plain;
  const DataKey::Tag tag = key->Encrypt(nonce, associated, cipher);
  const auto expect_refused = [](const DataKey& with, const DataKey::Nonce& n, const Bytes& a,
                                 const DataKey::Tag& t, const Bytes& from) {
    Bytes to(from.size(), 0xee);
    EXPECT_FALSE(with.Decrypt(n, a, t, from, to));
    EXPECT_EQ(to, Bytes(from.size(), 0));
  };
  const auto flipped = [](auto bytes, size_t at) {
    bytes[at] ^= 1;
    return bytes;
  };
  expect_refused(*Key(2), nonce, associated, tag, cipher);
  expect_refused(*key, flipped(nonce, 11), associated, tag, cipher);
  expect_refused(*key, nonce, flipped(associated, 111), tag, cipher);
  expect_refused(*key, nonce, associated, flipped(tag, 15), cipher);
  expect_refused(*key, nonce, associated, tag, flipped(cipher, 99));
  Bytes to(cipher.size());
  EXPECT_TRUE(key->Decrypt(nonce, associated, tag, cipher, to)) << "and the contexts still work";
  EXPECT_EQ(to, plain);
}

TEST(DataKeyTest, AKeyIsUsedByManyThreadsAtOnce) {
  const auto key = Key();
  std::vector<std::thread> threads;
  threads.reserve(4);
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Bytes plain(1000, static_cast<uint8_t>(t));
      for (int i = 0; i < 2000; ++i) {
        Bytes bytes = plain;
        const DataKey::Nonce nonce = key->NextNonce();
        const DataKey::Tag tag = key->Encrypt(nonce, {}, bytes);
        if (!key->Decrypt(nonce, {}, tag, bytes, bytes) || bytes != plain) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(DataKeyTest, NoncesCountAndAPrefixIsLeftWhenItIsUsedUp) {
  const auto key = Key(1, DataKey::Nonce{1, 2, 3, 4, 5, 6, 7, 8, 0xfe, 0xff, 0xff, 0xff});
  EXPECT_EQ(key->NextNonce(), (DataKey::Nonce{1, 2, 3, 4, 5, 6, 7, 8, 0xfe, 0xff, 0xff, 0xff}));
  EXPECT_EQ(key->NextNonce(), (DataKey::Nonce{1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff}));
  const DataKey::Nonce fresh = key->NextNonce();
  EXPECT_FALSE(std::equal(fresh.begin(), fresh.begin() + 8, DataKey::Nonce{1, 2, 3, 4, 5, 6, 7, 8}.begin()));
  EXPECT_TRUE(std::all_of(fresh.begin() + 8, fresh.end(), [](uint8_t byte) { return byte == 0; }));
}

TEST(DataKeyTest, EachLoadedKeyHasNoncesOfItsOwn) {
  std::set<DataKey::Nonce> nonces;
  for (int i = 0; i < 1000; ++i) nonces.insert(Key()->NextNonce());
  EXPECT_EQ(nonces.size(), 1000u);
}

TEST(DataKeyTest, AForkedChildHasNoncesOfItsOwn) {
  const auto key = Key();
  key->NextNonce();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const DataKey::Nonce nonce = key->NextNonce();
    ::_exit(::write(ends[1], nonce.data(), nonce.size()) == 12 ? 0 : 1);
  }
  DataKey::Nonce childs{};
  ASSERT_EQ(::read(ends[0], childs.data(), childs.size()), 12);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const DataKey::Nonce ours = key->NextNonce();
  EXPECT_FALSE(std::equal(ours.begin(), ours.begin() + 8, childs.begin()));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(DataKeyTest, WhatIsDerivedDependsOnKeyAndPurpose) {
  EXPECT_EQ(Key(1)->Derive("tenant domain"), Key(1)->Derive("tenant domain"));
  EXPECT_NE(Key(1)->Derive("tenant domain"), Key(2)->Derive("tenant domain"));
  EXPECT_NE(Key(1)->Derive("tenant domain"), Key(1)->Derive("something else"));
  EXPECT_EQ(Key(1)->Derive("x"),
            HmacSha256("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
                       "\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20",
                       "x"));
}

TEST(DataKeyDeathTest, ZeroIsNoKeysNumber) {
  EXPECT_DEATH(DataKey::FromBytes(std::array<uint8_t, 32>{}, 0), "never 0");
}

// No bound: what a machine shared with others does is not this code's to promise. Best of five.
TEST(DataKeyTest, PrintsItsSpeed) {
  const auto key = Key();
  const Bytes associated(112);
  Bytes bytes(16384), to(bytes.size());
  double seal_best = 0, open_best = 0;
  for (int round = 0; round < 5; ++round) {
    constexpr int kMessages = 2000;
    DataKey::Tag tag;
    DataKey::Nonce nonce;
    const auto rate = [&](auto&& once) {
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kMessages; ++i) once();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      return kMessages * static_cast<double>(bytes.size()) / took.count() / 1e9;
    };
    seal_best = std::max(seal_best, rate([&] {
                           nonce = key->NextNonce();
                           tag = key->Encrypt(nonce, associated, bytes);
                         }));
    open_best =
        std::max(open_best, rate([&] { ASSERT_TRUE(key->Decrypt(nonce, associated, tag, bytes, to)); }));
  }
  std::printf("AES-256-GCM, 16 KiB: seals %.2f GB/s, opens %.2f GB/s\n", seal_best, open_best);
}

}  // namespace
}  // namespace palimpsest
