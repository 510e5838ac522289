// The page of `inspect --html`: what it carries comes back, nothing in it can get out of the data, it stays
// small.
#include "apps/inspect_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <numeric>
#include <random>

#include "apps/kept_code.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

// Ids are places in `words`; the bytes are what they are.
class WordTokenizer : public Tokenizer {
 public:
  explicit WordTokenizer(std::vector<std::string> words) : words_(std::move(words)) {}
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view, Special) const override {
    return Unimplemented("not needed");
  }
  std::string Decode(std::span<const int32_t>, bool) const override { return ""; }
  int64_t vocabulary_size() const override { return static_cast<int64_t>(words_.size()); }
  int32_t bos() const override { return -1; }
  int32_t eos() const override { return -1; }
  bool add_bos() const override { return false; }
  bool IsEnd(int32_t) const override { return false; }
  bool IsSpecial(int32_t id) const override { return TokenText(id).starts_with("<|"); }
  std::string_view TokenText(int32_t id) const override { return words_.at(static_cast<size_t>(id)); }
  const std::string& hash() const override { return words_.front(); }

 private:
  std::vector<std::string> words_;
};

// --- what data.js does, in other words

std::string FromBase64(std::string_view text) {
  std::string bytes;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    const uint32_t value = c == '+'   ? 62
                           : c == '/' ? 63
                           : c >= 'a' ? static_cast<uint32_t>(c - 'a') + 26
                           : c >= 'A' ? static_cast<uint32_t>(c - 'A')
                                      : static_cast<uint32_t>(c - '0') + 52;
    group = group << 6 | value;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 255);
  }
  return bytes;
}

class KeptReader {
 public:
  KeptReader(size_t layers, size_t heads) : kept_(layers, std::vector<std::vector<int32_t>>(heads)) {}

  const Outcome::Kept& Read(std::string_view bytes, int64_t read) {
    bytes_ = bytes;
    for (auto& layer : kept_) {
      for (auto& tokens : layer) tokens = ReadHead(tokens);
    }
    EXPECT_TRUE(bytes_.empty()) << bytes_.size() << " bytes too many";
    read_ = read;
    return kept_;
  }

 private:
  uint8_t Byte() {
    EXPECT_FALSE(bytes_.empty());
    const auto byte = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  size_t Number() {
    size_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t byte = Byte();
      value |= static_cast<size_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }
  std::vector<int32_t> ReadHead(const std::vector<int32_t>& before) {
    const int form = Byte();
    const size_t count = Number();
    std::vector<size_t> places;
    if ((form & 1) != 0) {
      for (size_t i = 0; i < count; ++i) {
        const uint8_t byte = Byte();
        for (size_t bit = 0; bit < 8; ++bit) {
          if ((byte >> bit & 1) != 0) places.push_back(8 * i + bit);
        }
      }
    } else {
      size_t next = 0;
      for (size_t i = 0; i < count; i += 2) {
        next += Number();
        for (size_t run = Number(); run > 0; --run) places.push_back(next++);
      }
    }
    std::vector<int32_t> tokens;
    for (const size_t place : places) {
      const bool direct = (form & 2) == 0;
      tokens.push_back(
          direct || place >= before.size()
              ? static_cast<int32_t>(direct ? place : static_cast<size_t>(read_) + place - before.size())
              : before[place]);
    }
    return tokens;
  }

  Outcome::Kept kept_;
  std::string_view bytes_;
  int64_t read_ = 0;
};

// The data of a page; whatever stands around it is ours.
json::object DataOf(const std::string& page) {
  const std::string_view begin = R"(<script type="application/json" id="data">)";
  const size_t from = page.find(begin);
  PALIMPSEST_CHECK(from != std::string::npos, "no data");
  const size_t end = page.find("</script>", from);
  return json::parse(page.substr(from + begin.size(), end - from - begin.size())).as_object();
}

// --- samples

// `count` of the tokens `from`, sorted.
std::vector<int32_t> Some(std::vector<int32_t> from, size_t count, std::mt19937& random) {
  std::shuffle(from.begin(), from.end(), random);
  from.resize(std::min(count, from.size()));
  std::sort(from.begin(), from.end());
  return from;
}

std::vector<int32_t> Range(int32_t first, int32_t end) {
  std::vector<int32_t> tokens(static_cast<size_t>(end - first));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Distillations as a pot makes them: `keep` of what there was and of `fresh` new ones.
std::vector<Outcome::Kept> Pots(size_t layers, size_t heads, int32_t tokens, int32_t fresh, size_t keep) {
  std::mt19937 random(7);
  Outcome::Kept kept(layers, std::vector<std::vector<int32_t>>(heads));
  std::vector<Outcome::Kept> cycles;
  for (int32_t read = 0; read + fresh <= tokens; read += fresh) {
    for (auto& layer : kept) {
      for (auto& head : layer) {
        const std::vector<int32_t> stretch = Range(read, read + fresh);
        head.insert(head.end(), stretch.begin(), stretch.end());
        head = Some(head, keep, random);
      }
    }
    cycles.push_back(kept);
  }
  return cycles;
}

class InspectHtmlTest : public ::testing::Test {
 protected:
  std::string Page(const Inspection& inspection, size_t layers, size_t heads) const {
    return InspectionHtml(std::span(&inspection, 1),
                          {.model = "tiny",
                           .command = "palimpsest inspect",
                           .layers = static_cast<int64_t>(layers),
                           .kv_heads = static_cast<int64_t>(heads)},
                          tokenizer_);
  }
  // Every step that the page shows, by the number of its distillation (0: the end).
  static std::vector<std::pair<int64_t, Outcome::Kept>> StepsOf(const json::object& data) {
    KeptReader reader(static_cast<size_t>(data.at("layers").as_int64()),
                      static_cast<size_t>(data.at("kv_heads").as_int64()));
    std::vector<std::pair<int64_t, Outcome::Kept>> steps;
    for (const json::value& value : data.at("steps").as_array()) {
      const json::object& step = value.as_object();
      const std::string bytes = FromBase64(std::string_view(step.at("kept").as_string()));
      steps.emplace_back(step.at("cycle").to_number<int64_t>(),
                         reader.Read(bytes, step.at("read").as_int64()));
    }
    return steps;
  }

  WordTokenizer tokenizer_{{"zero", "one", "<|im_start|>"}};
};

TEST_F(InspectHtmlTest, KeptTokensComeBackAsTheyWere) {
  std::mt19937 random(1);
  Inspection inspection{.ids = std::vector<int32_t>(1000, 1), .policy = "snapkv"};
  // Runs, a spread, everything, one, none, the far end.
  inspection.kept = {{Range(0, 300), Some(Range(0, 1000), 250, random)},
                     {Range(0, 1000), {0}},
                     {{}, {999}},
                     {{5, 6, 7, 300, 301, 302, 303, 990}, Some(Range(0, 1000), 900, random)}};
  const auto steps = StepsOf(DataOf(Page(inspection, 4, 2)));
  ASSERT_EQ(steps.size(), 1U);
  EXPECT_EQ(steps[0].first, 0);
  EXPECT_EQ(steps[0].second, inspection.kept);
}

TEST_F(InspectHtmlTest, EveryDistillationComesBackAsItWas) {
  Inspection inspection{.ids = std::vector<int32_t>(2100, 1), .policy = "infinipot"};
  inspection.cycles = Pots(3, 2, 2100, 100, 77);
  inspection.kept = inspection.cycles.back();
  const auto steps = StepsOf(DataOf(Page(inspection, 3, 2)));
  ASSERT_EQ(steps.size(), inspection.cycles.size()) << "the end is the last distillation: shown once";
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].first, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(steps[i].second, inspection.cycles[i]);
  }
}

TEST_F(InspectHtmlTest, TokenThatComesBackAfterItWasDroppedIsCodedToo) {
  Inspection inspection{.ids = std::vector<int32_t>(100, 1), .policy = "infinipot"};
  inspection.cycles = {{{{1, 2, 50}}}, {{{1, 3, 60}}}};
  inspection.kept = {{{0, 99}}};
  const auto steps = StepsOf(DataOf(Page(inspection, 1, 1)));
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[1].second, inspection.cycles[1]);
  EXPECT_EQ(steps[2], std::make_pair(int64_t{0}, inspection.kept));
}

TEST_F(InspectHtmlTest, PageStaysSmall) {
  // 8K tokens x 90 heads: any quarter of them, which is the worst that can be coded.
  std::mt19937 random(3);
  Inspection inspection{.ids = std::vector<int32_t>(8192, 1), .policy = "random"};
  for (int layer = 0; layer < 30; ++layer) {
    inspection.kept.emplace_back();
    for (int head = 0; head < 3; ++head) {
      inspection.kept.back().push_back(Some(Range(0, 8192), 2048, random));
    }
  }
  EXPECT_LT(Page(inspection, 30, 3).size(), 300'000U);
  // The same text through a pot of 512, every distillation of it.
  inspection.cycles = Pots(30, 3, 8192, 256, 256);
  inspection.kept = inspection.cycles.back();
  EXPECT_EQ(inspection.cycles.size(), 32U);
  EXPECT_LT(Page(inspection, 30, 3).size(), 500'000U);
}

TEST_F(InspectHtmlTest, OfManyDistillationsTheFirstTheLastAndSomeBetweenAreDrawn) {
  Inspection inspection{.ids = std::vector<int32_t>(12000, 1), .policy = "infinipot"};
  inspection.cycles = Pots(1, 1, 12000, 16, 40);
  inspection.kept = inspection.cycles.back();
  const json::object data = DataOf(Page(inspection, 1, 1));
  EXPECT_EQ(data.at("cycles").to_number<int64_t>(), 750);
  const auto steps = StepsOf(data);
  ASSERT_EQ(steps.size(), 256U);
  EXPECT_EQ(steps.front().first, 1);
  EXPECT_EQ(steps.back().first, 750);
  for (const auto& [cycle, kept] : steps) {
    EXPECT_EQ(kept, inspection.cycles[static_cast<size_t>(cycle) - 1]);
  }
}

TEST_F(InspectHtmlTest, NothingThatComesFromOutsideCanEndTheData) {
  const std::vector<std::string> evil = {"</script><script>alert(1)</script>",
                                         "<!--<script>",
                                         "<img src=x onerror=alert(1)>",
                                         "]]>&lt;&#60;",
                                         "\"},\"x\":{\"",
                                         "{{script}}{{data}}",
                                         "\\u003c\\",
                                         "\xe2\x80\xa8\xe2\x80\xa9",
                                         std::string("\0\x01\x7f\r\n", 5)};
  const WordTokenizer tokenizer(evil);
  Inspection inspection{.ids = Range(0, static_cast<int32_t>(evil.size())), .policy = evil[0]};
  inspection.kept = {{{0, 1}}};
  const std::string page =
      InspectionHtml(std::span(&inspection, 1),
                     {.model = evil[0], .command = evil[1] + "\xff", .layers = 1, .kv_heads = 1}, tokenizer);
  const Inspection nothing;
  const std::string empty = InspectionHtml(std::span(&nothing, 1), {.layers = 1, .kv_heads = 1}, tokenizer);
  for (const char* const markup : {"<script", "</script", "<img", "<!--", "]]>"}) {
    const auto count = [&](const std::string& text) {
      size_t found = 0;
      for (size_t at = 0; (at = text.find(markup, at)) != std::string::npos; ++at) ++found;
      return found;
    };
    EXPECT_EQ(count(page), count(empty)) << markup;
  }
  const json::object data = DataOf(page);
  for (size_t id = 0; id < evil.size(); ++id) {
    EXPECT_EQ(data.at("texts").at(std::to_string(id)).as_string(), evil[id]);
  }
  EXPECT_EQ(data.at("model").as_string(), evil[0]);
  EXPECT_EQ(data.at("policy").as_string(), evil[0]);
}

TEST_F(InspectHtmlTest, PartOfACharacterIsCarriedAsBytes) {
  const WordTokenizer tokenizer({"\xf0\x9f", "\xc3\xa9", "\x98", "<|end|>"});
  const Inspection inspection{.ids = {0, 2, 1}, .generated = {3}};
  const json::object data =
      DataOf(InspectionHtml(std::span(&inspection, 1), {.layers = 1, .kv_heads = 1}, tokenizer));
  EXPECT_EQ(data.at("texts").at("0"), json::value(json::array{0xf0, 0x9f}));
  EXPECT_EQ(data.at("texts").at("2"), json::value(json::array{0x98}));
  EXPECT_EQ(data.at("texts").at("1").as_string(), "\xc3\xa9");
  EXPECT_EQ(data.at("special"), json::value(json::array{3})) << "of an answer's tokens too";
}

TEST_F(InspectHtmlTest, TwoPoliciesStandBesideEachOther) {
  const std::vector<Inspection> two = {
      {.ids = {0, 1, 1}, .generated = {2}, .policy = "snapkv:budget=2", .kept = {{{0, 2}}}},
      {.ids = {0, 1, 1},
       .generated = {1},
       .policy = "knorm:budget=1",
       .kept = {{{1}}},
       .resident_tokens = 1}};
  const json::object data = DataOf(InspectionHtml(two, {.layers = 1, .kv_heads = 1}, tokenizer_));
  EXPECT_EQ(data.at("policy").as_string(), "snapkv:budget=2");
  EXPECT_EQ(StepsOf(data)[0].second, two[0].kept);
  json::object other = data.at("other").as_object();
  EXPECT_EQ(other.at("policy").as_string(), "knorm:budget=1");
  EXPECT_EQ(other.at("generated"), json::value(json::array{1}));
  other["layers"] = other["kv_heads"] = 1;
  EXPECT_EQ(StepsOf(other)[0].second, two[1].kept);
  EXPECT_TRUE(data.at("texts").as_object().contains("2")) << "of either answer";
}

TEST_F(InspectHtmlTest, FullIsDrawnWithoutSteps) {
  const json::object data = DataOf(Page({.ids = {0, 1, 1}}, 2, 2));
  EXPECT_EQ(data.at("policy").as_string(), "full");
  EXPECT_TRUE(data.at("steps").as_array().empty());
  EXPECT_EQ(data.at("ids").as_array().size(), 3U);
}

TEST_F(InspectHtmlTest, PageAsksNoNetworkForAnything) {
  const std::string page = Page({.ids = {0, 1}}, 1, 1);
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* const loads : {"http:", "https:", "src=", "@import", "url(", "fetch(", "innerHTML"}) {
    EXPECT_THAT(page, Not(HasSubstr(loads)));
  }
}

TEST(Base64Test, IsThatOfRfc4648) {
  EXPECT_EQ(Base64(""), "");
  EXPECT_EQ(Base64("f"), "Zg==");
  EXPECT_EQ(Base64("fo"), "Zm8=");
  EXPECT_EQ(Base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(Base64("\xff\xfe\xfd"), "//79");
}

}  // namespace
}  // namespace palimpsest
