#include "storage/block_id.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace palimpsest {
namespace {

BlockKeySchema Example() {
  BlockKeySchema schema;
  std::iota(schema.model_hash.bytes.begin(), schema.model_hash.bytes.end(), uint8_t{0});
  schema.adapter_hash.bytes.fill(0xA5);
  schema.layers = 30;
  schema.query_heads = 9;
  schema.kv_heads = 3;
  schema.head_size = 64;
  schema.rope_base = 100000;
  schema.rope_dimension = 64;
  schema.rope_scaling = "linear:factor=2";
  schema.kv_dtype = "bf16";
  schema.layout = "head-major/unrotated";
  schema.numerics_class = "cpu/avx512bf16/q4_1";
  schema.prefill_mode = "anchored";
  schema.prefill_parameters = "anchor=512";
  std::iota(schema.tenant_key.begin(), schema.tenant_key.end(), uint8_t{100});
  return schema;
}

std::vector<int32_t> Tokens(int count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// Made by tests/testing/block_id_golden.py. A change here makes every stored block unreachable: raise
// format_version.
TEST(BlockIdTest, IdsAreTheSameInEveryProcess) {
  const BlockChain chain(Example());
  const BlockId first = chain.Next(chain.Root(), 0, Tokens(64));
  EXPECT_EQ(chain.Root().ToHex(), "8417e83ddd513da81a618acb59dff535b7d646daf64e0abc27a02cf3e31a8896");
  EXPECT_EQ(first.ToHex(), "ee70f12a0d73d2f3d830590fe6436c3749b241353ad9b878d6c44efa1cf6605d");
  EXPECT_EQ(chain.Next(first, 64, std::vector<int32_t>{49151, 0, 1}).ToHex(),
            "2df3120518d237b7f92f419df1dabc4fa385f20fbed09548222bf404dbd86f69");
}

// All that a block's id is computed from.
struct Inputs {
  BlockKeySchema schema = Example();
  BlockId parent{Sha256("parent")};
  int64_t position = 128;
  std::vector<int32_t> tokens = Tokens(32);
  BlockId Id() const { return BlockChain(schema).Next(parent, position, tokens); }
};

template <typename Bytes>
void FlipBit(Bytes& bytes, std::mt19937_64& random) {
  bytes[random() % bytes.size()] ^= static_cast<uint8_t>(1u << (random() % 8));
}

void ChangeText(std::string& text, std::mt19937_64& random) {
  const std::string before = text;
  while (text == before) {
    const auto letter = static_cast<char>(random() % 256);
    const auto at = static_cast<std::ptrdiff_t>(random() % (text.size() + 1));
    if (random() % 2 == 0 || at == static_cast<std::ptrdiff_t>(text.size())) {
      text.insert(text.begin() + at, letter);
    } else if (random() % 2 == 0) {
      text.erase(text.begin() + at);
    } else {
      text[static_cast<size_t>(at)] = letter;
    }
  }
}

void ChangeTokens(std::vector<int32_t>& tokens, std::mt19937_64& random) {
  const auto at = static_cast<std::ptrdiff_t>(random() % tokens.size());
  switch (random() % 3) {
    case 0:
      tokens[static_cast<size_t>(at)] ^= static_cast<int32_t>(1u << (random() % 31));
      break;
    case 1:
      tokens.erase(tokens.begin() + at);
      break;
    default:
      tokens.insert(tokens.begin() + at, static_cast<int32_t>(random() % 49152));
  }
}

using Change = std::function<void(Inputs&, std::mt19937_64&)>;

template <typename T>
Change ChangeInteger(T BlockKeySchema::*field) {
  return [field](Inputs& in, std::mt19937_64& random) {
    in.schema.*field ^= static_cast<T>(T{1} << (random() % 31));
  };
}

Change ChangeTextOf(std::string BlockKeySchema::*field) {
  return [field](Inputs& in, std::mt19937_64& random) { ChangeText(in.schema.*field, random); };
}

std::map<std::string, Change> Changes() {
  using S = BlockKeySchema;
  std::map<std::string, Change> changes = {
      {"model_hash", [](Inputs& in, auto& random) { FlipBit(in.schema.model_hash.bytes, random); }},
      {"adapter_hash", [](Inputs& in, auto& random) { FlipBit(in.schema.adapter_hash.bytes, random); }},
      {"tenant_key", [](Inputs& in, auto& random) { FlipBit(in.schema.tenant_key, random); }},
      {"parent", [](Inputs& in, auto& random) { FlipBit(in.parent.bytes, random); }},
      {"position", [](Inputs& in, auto& random) { in.position ^= int64_t{1} << (random() % 62); }},
      {"tokens", [](Inputs& in, auto& random) { ChangeTokens(in.tokens, random); }},
      {"rope_base",
       [](Inputs& in, auto& random) { in.schema.rope_base *= 1 + 0x1p-52 * (1 + random() % 1000); }},
      {"layers", ChangeInteger(&S::layers)},
      {"query_heads", ChangeInteger(&S::query_heads)},
      {"kv_heads", ChangeInteger(&S::kv_heads)},
      {"head_size", ChangeInteger(&S::head_size)},
      {"attention_window", ChangeInteger(&S::attention_window)},
      {"rope_dimension", ChangeInteger(&S::rope_dimension)},
      {"format_version", ChangeInteger(&S::format_version)},
      // Raised only: the block must still fit.
      {"block_tokens", [](Inputs& in, auto& random) { in.schema.block_tokens += 1 + random() % 1000000; }},
      {"rope_scaling", ChangeTextOf(&S::rope_scaling)},
      {"kv_dtype", ChangeTextOf(&S::kv_dtype)},
      {"layout", ChangeTextOf(&S::layout)},
      {"numerics_class", ChangeTextOf(&S::numerics_class)},
      {"prefill_mode", ChangeTextOf(&S::prefill_mode)},
      {"prefill_parameters", ChangeTextOf(&S::prefill_parameters)},
  };
  return changes;
}

// F1 of the fault matrix: 1,000 cases a field, 0 hits.
TEST(BlockIdTest, ChangingAnyOneFieldChangesTheId) {
  const BlockId id = Inputs().Id();
  for (const auto& [name, change] : Changes()) {
    std::mt19937_64 random(1);
    for (int i = 0; i < 1000; ++i) {
      Inputs changed;
      change(changed, random);
      ASSERT_NE(changed.Id(), id) << name << " case " << i;
    }
  }
}

TEST(BlockIdTest, EverySchemaFieldChangesTheRoot) {
  const BlockId root = BlockChain(Example()).Root();
  for (const auto& [name, change] : Changes()) {
    if (name == "parent" || name == "position" || name == "tokens") continue;
    std::mt19937_64 random(2);
    Inputs changed;
    change(changed, random);
    EXPECT_NE(BlockChain(changed.schema).Root(), root) << name;
  }
}

TEST(BlockIdTest, MovingBytesBetweenAdjacentFieldsChangesTheId) {
  const std::vector<std::string BlockKeySchema::*> texts = {
      &BlockKeySchema::rope_scaling,   &BlockKeySchema::kv_dtype,     &BlockKeySchema::layout,
      &BlockKeySchema::numerics_class, &BlockKeySchema::prefill_mode, &BlockKeySchema::prefill_parameters};
  std::set<BlockId> ids;
  size_t cases = 0;
  // Every way to cut one text into two neighbours gives its own id, the empty neighbours too.
  for (size_t field = 0; field + 1 < texts.size(); ++field) {
    const std::string whole(17, 'a');
    for (size_t cut = 0; cut <= whole.size(); ++cut, ++cases) {
      Inputs in;
      in.schema.*texts[field] = whole.substr(0, cut);
      in.schema.*texts[field + 1] = whole.substr(cut);
      ids.insert(in.Id());
    }
  }
  EXPECT_EQ(ids.size(), cases);
}

TEST(BlockIdTest, ALengthInsideATextIsNotTakenForALength) {
  Inputs one, two;
  one.schema.prefill_mode = "exact";
  one.schema.prefill_parameters = "";
  two.schema.prefill_mode = std::string("exact\0\0\0\0\0\0\0\0", 13);
  two.schema.prefill_parameters = "";
  EXPECT_NE(one.Id(), two.Id());
}

TEST(BlockIdTest, ABlockOfManyTokensIsNotTwoBlocks) {
  const BlockChain chain(Example());
  const std::vector<int32_t> tokens = Tokens(64);
  const BlockId whole = chain.Next(chain.Root(), 0, tokens);
  const BlockId half = chain.Next(chain.Root(), 0, std::span(tokens).first(32));
  EXPECT_NE(chain.Next(half, 32, std::span(tokens).subspan(32)), whole);
}

// F1's scan for collisions: PALIMPSEST_TEST_IDS of them.
TEST(BlockIdTest, ManyBlocksHaveManyIds) {
  const char* const wanted = std::getenv("PALIMPSEST_TEST_IDS");
  const int64_t count = wanted != nullptr ? std::strtoll(wanted, nullptr, 10) : 100000;
  const BlockChain chain(Example());
  std::vector<BlockId> ids;
  BlockId parent = chain.Root();
  for (int64_t i = 0; i < count; ++i) {
    parent = chain.Next(parent, i, std::vector<int32_t>{static_cast<int32_t>(i % 7)});
    ids.push_back(parent);
  }
  ASSERT_EQ(std::ssize(ids), count);
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
}

TEST(BlockIdDeathTest, ABlockWithoutTokensOrWithTooManyIsABug) {
  const BlockChain chain(Example());
  EXPECT_DEATH(chain.Next(chain.Root(), 0, {}), "0 tokens");
  EXPECT_DEATH(chain.Next(chain.Root(), 0, Tokens(65)), "65 tokens");
  EXPECT_DEATH(chain.Next(chain.Root(), -1, Tokens(1)), "position -1");
}

}  // namespace
}  // namespace palimpsest
