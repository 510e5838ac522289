#include "proto/base/ids.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

// FIPS 180-2, appendix B.1.
TEST(Sha256Test, GivesThePublishedDigest) {
  EXPECT_EQ(Sha256("abc").ToHex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// RFC 4231, test case 2.
TEST(HmacSha256Test, GivesThePublishedTag) {
  EXPECT_EQ(HmacSha256("Jefe", "what do ya want for nothing?").ToHex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Hash256Test, HexComesBack) {
  const Hash256 hash = Sha256("x");
  ASSERT_TRUE(Hash256::FromHex(hash.ToHex()).ok());
  EXPECT_EQ(*Hash256::FromHex(hash.ToHex()), hash);
}

TEST(Hash256Test, OtherTextIsAnError) {
  EXPECT_FALSE(Hash256::FromHex("").ok());
  EXPECT_FALSE(Hash256::FromHex(std::string(63, '0')).ok());
  EXPECT_FALSE(Hash256::FromHex(std::string(63, '0') + "g").ok());
  EXPECT_FALSE(Hash256::FromHex(std::string(63, '0') + "A").ok());
}

}  // namespace
}  // namespace palimpsest
