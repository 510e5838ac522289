// The induction model at 16K tokens: all that the short tests hold, once more where lengths begin to matter,
// and blocks that come back from SSD in a new process's place.
#include <gtest/gtest.h>

#include "tests/testing/temporary_folder.h"
#include "tests/worker/induction_engine.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;
using namespace induction;  // NOLINT: this file is about nothing else

constexpr int64_t kTokens = 16384, kSpan = 2048;
constexpr char kRecall[] = "slices:budget=64,slice=32,words=0";
const std::vector<int32_t> kAllUnknown(kSlots, kUnknown);

std::vector<int32_t> Whole(const Needle& needle) { return AnswerWith(needle, kAllSlots); }
const std::vector<Needle>& Needles() {
  static const auto needles = SpreadNeedles(kTokens, 10, 20);
  return needles;
}
std::vector<int64_t> Spans() {
  std::vector<int64_t> ends;
  for (int64_t end = kSpan; end <= kTokens; end += kSpan) ends.push_back(end);
  return ends;
}

TEST(InductionLongTest, DenseEvictedAndRecalledAsTheLawSays) {
  InductionReader reader(Document(kTokens, Needles(), 20), InductionEngine());
  for (const Needle& needle : Needles()) {
    EXPECT_EQ(reader.Ask(needle.key, {}), Whole(needle)) << needle.first;
    // Its first 1,024 - 32 tokens and the last 32.
    EXPECT_EQ(reader.Ask(needle.key, {.policy = "snapkv"}), needle.first == 0 ? Whole(needle) : kAllUnknown)
        << needle.first;
    for (const char* recall : {"slices", kRecall, "all"}) {
      EXPECT_EQ(reader.Ask(needle.key, {.policy = "snapkv:budget=64", .recall = recall}), Whole(needle))
          << recall << " at " << needle.first;
    }
    EXPECT_EQ(reader.Ask(needle.key, {.policy = "streaming:sink=1,recent=1024"}),
              needle.first > kTokens - 1024 ? Whole(needle) : kAllUnknown)
        << needle.first;
  }
  EXPECT_EQ(reader.Ask(Key(63), {}), kAllUnknown);
  EXPECT_EQ(reader.Ask(Key(63), {.policy = "snapkv:budget=64", .recall = kRecall}), kAllUnknown);
}

// Read in spans by one engine, asked of another that has only what is on SSD. In a small window positions
// begin anew behind what stays; in a large one spans stand where they are in the document.
TEST(InductionLongTest, AnsweredFromSsdAfterARestart) {
  for (const int64_t context : {int64_t{4096}, int64_t{1} << 23}) {
    const TemporaryFolder folder;
    TinyEngineOptions options = InductionEngine();
    options.host_bytes = 0;
    options.ssd_folder = folder.path() + "/tier";
    const InductionWay way{kAnchored, "snapkv:budget=64", kRecall};
    {
      InductionReader reader(Document(kTokens, Needles(), 20), options, {.context = context});
      reader.CutInto(Spans());
      EXPECT_EQ(reader.Ask(Needles()[4].key, way), Whole(Needles()[4]));
      EXPECT_EQ(reader.Ask(Needles()[4].key, {kAnchored, "snapkv:budget=64"}), kAllUnknown);
    }
    InductionReader reader(Document(kTokens, Needles(), 20), options, {.context = context});
    reader.CutInto(Spans());
    int64_t from_ssd = 0;
    for (const Needle& needle : Needles()) {
      EXPECT_EQ(reader.Ask(needle.key, way), Whole(needle)) << needle.first << " window " << context;
      const proto::Receipt& receipt = reader.outcome().receipt;
      from_ssd += receipt.recalled().ssd().slices();  // later ones may find a tile that came for another
      EXPECT_EQ(receipt.recomputed_tokens(), 0);
      EXPECT_EQ(receipt.degraded_size(), 0);
    }
    EXPECT_GT(from_ssd, static_cast<int64_t>(Needles().size()));
  }
}

// 65 distillations.
TEST(InductionLongTest, APotHoldsTenNeedles) {
  InductionReader reader(Document(kTokens, Needles(), 20), InductionEngine());
  const InductionWay way{kPot, "infinipot:pot=512,keep=256"};
  for (const Needle& needle : Needles())
    EXPECT_EQ(reader.Ask(needle.key, way), Whole(needle)) << needle.first;
  EXPECT_EQ(reader.Ask(Key(63), way), kAllUnknown);
}

}  // namespace
}  // namespace palimpsest::testing
