// A row's bits depend on its own session only (design.md 6, Numerics): not on chunks, threads, neighbours or
// the way its blocks are kept. Held for every instruction set this machine can run.
#include <gtest/gtest.h>

#include <utility>

#include "proto/base/rng.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

constexpr int64_t kAnswer = 12;

class BitsTest : public ::testing::TestWithParam<Numerics> {
 protected:
  Outcome RunAlone(std::vector<Segment> segments, int64_t chunk_tokens = 4096, int threads = 2) {
    auto engine = MakeTinyEngine(
        model_,
        {.numerics = GetParam(), .threads = threads, .chunk_tokens = chunk_tokens, .tokenizer = false});
    return RunOk(*engine, MakeRequest(std::move(segments), kAnswer));
  }

  // Panels that are not whole: 300 and 192 outputs. The int8 class needs whole groups of 64.
  const std::shared_ptr<const GgufFile> model_ =
      TinyModel({.ffn = GetParam().format == WeightFormat::kInt8 ? 128 : 96});
};

// More than 8 tiles: attention merges splits.
TEST_P(BitsTest, AnyChunkingGivesTheSameBits) {
  const std::vector<Segment> prompt = Prompt(600, 17);
  const Outcome whole = RunAlone(prompt);
  ASSERT_EQ(LogitsOf(whole).size(), static_cast<size_t>(kTinyVocabulary));
  ASSERT_EQ(whole.tokens.size(), static_cast<size_t>(kAnswer));
  for (const int64_t chunk : {1, 3, 7, 64, 100, 637}) {
    EXPECT_EQ(Difference(whole, RunAlone(prompt, chunk)), "") << "chunks of " << chunk;
  }
}

TEST_P(BitsTest, AnyNumberOfThreadsGivesTheSameBits) {
  const std::vector<Segment> prompt = Prompt(600, 17);
  const Outcome one = RunAlone(prompt, 200, 1);
  for (const int threads : {2, 3, 4}) {
    EXPECT_EQ(Difference(one, RunAlone(prompt, 200, threads)), "") << threads << " threads";
  }
}

// Cuts at whole blocks leave every token in its tile. After a shared partial block, which is sealed, the
// answer begins a tile of its own, another order of accumulation: there only the prompt's bits are the same.
TEST_P(BitsTest, SegmentsMayBeCutAtWholeBlocksAndSharedOrNot) {
  const std::vector<int32_t> tokens = RandomTokens(300, 3);
  const auto part = [&](size_t first, size_t last, bool shared) {
    return Segment{
        .tokens = {tokens.begin() + static_cast<int64_t>(first), tokens.begin() + static_cast<int64_t>(last)},
        .shared = shared};
  };
  const Outcome whole = RunAlone({part(0, 300, false)});
  EXPECT_EQ(LogitsOf(whole), LogitsOf(RunAlone({part(0, 300, true)})));
  EXPECT_EQ(Difference(whole, RunAlone({part(0, 256, true), part(256, 300, false)})), "");
  EXPECT_EQ(Difference(whole, RunAlone({part(0, 64, true), part(64, 256, true), part(256, 300, false)}, 50)),
            "");
  EXPECT_EQ(
      Difference(whole, RunAlone({part(0, 128, true), part(128, 256, false), part(256, 300, false)}, 77)),
      "");
  std::vector<Segment> blocks;
  for (size_t first = 0; first < 300; first += 64) {
    blocks.push_back(part(first, std::min<size_t>(300, first + 64), first < 192));
    blocks.push_back({});  // an empty segment is nothing
  }
  EXPECT_EQ(Difference(whole, RunAlone(blocks, 10)), "");
}

// What decoding appended one by one is what a prompt with the same text has: one numerics class for both.
TEST_P(BitsTest, ADecodedRowHasTheBitsOfAPrefilledOne) {
  std::vector<Segment> prompt = Prompt(100, 40);
  Request request = MakeRequest(prompt, 100);
  request.sampling.set_temperature(0);
  auto engine = MakeTinyEngine(model_, {.numerics = GetParam(), .tokenizer = false});
  const std::vector<int32_t> answer = RunOk(*engine, request).tokens;
  ASSERT_EQ(answer.size(), 100u);
  // The answer goes on in the question's tile and then in whole ones, as a longer question would.
  for (const size_t known : {1, 20, 24, 25, 63, 99}) {
    Request longer = request;
    std::vector<int32_t>& question = longer.segments.back().tokens;
    question.insert(question.end(), answer.begin(), answer.begin() + static_cast<int64_t>(known));
    longer.sampling.set_max_tokens(static_cast<int64_t>(100 - known));
    const std::vector<int32_t> rest = RunOk(*engine, longer).tokens;
    EXPECT_EQ(rest, std::vector<int32_t>(answer.begin() + static_cast<int64_t>(known), answer.end()))
        << known;
  }
}

struct Arrival {
  std::vector<Segment> prompt;
  int64_t answer;
  Outcome alone;
};

// Fourteen sessions of many lengths, some over the same document, so that steps mix chunks of several prompts
// with up to fourteen decode rows; one order of arrival per seed.
TEST_P(BitsTest, OtherSessionsInTheStepDoNotChangeABit) {
  std::vector<Arrival> arrivals;
  for (const int64_t document : {1, 5, 43, 64, 130, 200, 530}) {
    for (const int64_t question : {3, 70}) {
      Arrival a{
          Prompt(document, question, static_cast<uint64_t>(document % 3)), document % 40 + question / 2, {}};
      auto engine = MakeTinyEngine(model_, {.numerics = GetParam(), .tokenizer = false});
      a.alone = RunOk(*engine, MakeRequest(a.prompt, a.answer));
      arrivals.push_back(std::move(a));
    }
  }
  for (const uint64_t seed : {1, 2, 3}) {
    RngSequence rng{Rng(seed)};
    const int64_t chunk = std::vector<int64_t>{20, 37, 150}[seed - 1];
    auto engine = MakeTinyEngine(model_, {.numerics = GetParam(), .chunk_tokens = chunk, .tokenizer = false});
    std::vector<size_t> order(arrivals.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.Below(i)]);
    std::vector<Engine::JobId> jobs;
    for (const size_t i : order) {
      jobs.push_back(engine->Submit(MakeRequest(arrivals[i].prompt, arrivals[i].answer)).value());
      for (uint64_t steps = rng.Below(4); steps > 0; --steps) engine->Step();
    }
    const std::vector<Outcome> outcomes = Drain(*engine, jobs);
    for (size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(Difference(arrivals[order[i]].alone, outcomes[i]), "") << "seed " << seed << " session " << i;
    }
    ExpectAllReturned(*engine);
  }
}

INSTANTIATE_TEST_SUITE_P(Classes, BitsTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

}  // namespace
}  // namespace palimpsest::testing
