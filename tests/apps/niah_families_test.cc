// The tasks besides single needles: what each hides, that all of it is there once, in the length asked for.
// Tokens are counted by a stand-in for a tokenizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "apps/niah/fit.h"
#include "apps/niah/stories.h"
#include "apps/niah/task.h"
#include "apps/niah/words.h"
#include "proto/base/ids.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr uint64_t kSeeds = 200;

// As tokenizers of words do: six letters a token, one for each digit and mark; a space goes with what
// follows.
int64_t Tokens(std::string_view text) {
  int64_t tokens = 0, letters = 0;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    letters = letter ? letters + 1 : 0;
    if (letter ? letters % 6 == 1 : c != ' ') ++tokens;
  }
  return tokens;
}

absl::StatusOr<int64_t> Count(const NiahSample& sample) {
  int64_t tokens = 40 + Tokens(sample.context);
  for (const NiahTurn& turn : sample.turns) {
    tokens += Tokens(turn.question) + Tokens(turn.answer_prefix) + sample.answer_tokens;
  }
  return tokens;
}

std::string Prose() {
  std::string text;
  for (int sentence = 0; sentence < 700; ++sentence) {
    for (int word = 0; word < 4 + sentence * 7 % 30; ++word) {
      text += static_cast<char>('a' + (sentence + word) % 26);
      text += static_cast<char>('a' + (sentence * 3 + word * 5) % 26);
      text += ' ';
    }
    text += "end. ";
  }
  return text;
}

std::string Squad() {
  json::array paragraphs;
  for (int i = 0; i < 60; ++i) {
    std::string text = fmt::format("Paragraph {} tells of town {}.", i, i);
    for (int word = 0; word < 90; ++word) text += fmt::format(" word{}x{}", i, word);
    paragraphs.push_back(json::object{
        {"context", text},
        {"qas",
         json::array{json::object{{"question", fmt::format("Which town does {} tell of?", i)},
                                  {"answers", json::array{json::object{{"text", fmt::format("town {}", i)}},
                                                          json::object{{"text", "it"}}}}},
                     json::object{{"question", "unanswerable"}, {"answers", json::array{}}}}}});
  }
  return json::serialize(json::object{{"data", json::array{json::object{{"paragraphs", paragraphs}}}}});
}

std::string HotpotQa() {
  json::array items;
  for (int i = 0; i < 12; ++i) {
    json::array context;
    for (int j = 0; j < 5; ++j) {
      json::array sentences;
      for (int k = 0; k < 12; ++k)
        sentences.emplace_back(fmt::format(" Sentence {} of {} in {} goes on so.", k, j, i));
      context.push_back(json::array{fmt::format("Title {} {}", i, j), sentences});
    }
    items.push_back(
        json::object{{"question", fmt::format("What joins {}?", i)},
                     {"answer", fmt::format("joint {}", i)},
                     {"context", context},
                     {"supporting_facts", json::array{json::array{fmt::format("Title {} 1", i), 0},
                                                      json::array{fmt::format("Title {} 3", i), 2}}}});
  }
  return json::serialize(items);
}

std::unique_ptr<NiahTask> Task(const std::string& name, const std::string& prose = Prose()) {
  auto task = MakeNiahTask(name, {.prose = prose,
                                  .prose_name = "prose.txt",
                                  .squad = Squad(),
                                  .squad_name = "squad.json",
                                  .hotpot_qa = HotpotQa(),
                                  .hotpot_qa_name = "hotpot.json"});
  PALIMPSEST_CHECK(task.ok(), "{}", Message(task.status()));
  return *std::move(task);
}

NiahSample Generate(const NiahTask& task, const NiahRequest& request) {
  auto sample = task.Generate(request, Count);
  PALIMPSEST_CHECK(sample.ok(), "{} {}: {}", task.name(), request.seed, Message(sample.status()));
  return *std::move(sample);
}

class EveryTaskTest : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryTaskTest, NeedlesAreThereOnceInTheLengthAskedForAtTheDepthAskedFor) {
  const auto task = Task(GetParam());
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const NiahRequest request{
        .seed = seed, .tokens = 3000, .depth_percent = static_cast<double>(seed % 5 * 25)};
    const NiahSample sample = Generate(*task, request);
    const int64_t counted = *Count(sample);
    EXPECT_LE(counted, 3000) << seed;
    EXPECT_GE(counted, 2970) << seed;
    EXPECT_GT(sample.answer_tokens, 0);
    ASSERT_THAT(sample.turns, SizeIs(1));
    const NiahTurn& turn = sample.turns[0];
    EXPECT_FALSE(turn.references.empty());
    for (const std::string& needle : turn.needles) EXPECT_EQ(Times(needle, sample.context), 1) << needle;
    if (task->has_depths()) {
      EXPECT_EQ(turn.depth_percent, request.depth_percent);
      // Half of the largest piece: a paragraph is much of a text of 3,000 tokens.
      const double off = task->name().starts_with("qa_") ? 13 : 6;
      EXPECT_NEAR(turn.stands_at_percent, request.depth_percent, off) << seed;
      EXPECT_FALSE(turn.needles.empty());
    }
  }
}

TEST_P(EveryTaskTest, RightAnswerScoresOneAndAnEmptyOneNothing) {
  const auto task = Task(GetParam());
  const NiahSample sample = Generate(*task, {.seed = 3, .tokens = 3000, .depth_percent = 50});
  const NiahTurn& turn = sample.turns[0];
  EXPECT_EQ(task->Score(fmt::format("{}", fmt::join(turn.references, ", ")), turn), 1);
  EXPECT_EQ(task->Score("", turn), 0);
  EXPECT_EQ(task->Score("I do not know.", turn), 0);
  EXPECT_EQ(NiahScorerOf(GetParam()).value()("", turn), 0) << "the scorer is the task's";
}

TEST_P(EveryTaskTest, SamplesAreWrittenDown) {
  // A change of any of them makes all earlier figures of its task incomparable.
  static const std::map<std::string, std::string> kDigests = {
#include "tests/apps/niah_samples.inc"
  };
  const NiahSample sample = Generate(*Task(GetParam()), {.seed = 7, .tokens = 2800, .depth_percent = 30});
  const NiahTurn& turn = sample.turns[0];
  const std::string digest = Sha256(fmt::format("{}|{}|{}|{}", sample.context, turn.question,
                                                turn.answer_prefix, fmt::join(turn.references, "|")))
                                 .ToHex()
                                 .substr(0, 16);
  const auto found = kDigests.find(GetParam());
  EXPECT_EQ(digest, found == kDigests.end() ? "" : found->second) << GetParam();
}

TEST_P(EveryTaskTest, OtherSeedsAndDepthsAreOtherSamples) {
  const auto task = Task(GetParam());
  std::set<std::string> contexts;
  for (const NiahRequest& request :
       {NiahRequest{1, 3000, 50}, NiahRequest{2, 3000, 50}, NiahRequest{1, 3000, 75}}) {
    contexts.insert(Generate(*task, request).context);
  }
  EXPECT_THAT(contexts, SizeIs(3));
}

// So that what was read of one is found for the others.
TEST_P(EveryTaskTest, TextsOfDepthsAreTheSameUpToTheFirstNeedle) {
  const auto task = Task(GetParam());
  if (!task->has_depths()) GTEST_SKIP() << "it has no depths";
  if (task->name().starts_with("babi_"))
    GTEST_SKIP() << "what came before stands all over the text before it";
  if (task->name().starts_with("qa_"))
    GTEST_SKIP() << "what answers one question is among another's paragraphs";
  int64_t differ = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const NiahSample a = Generate(*task, {.seed = seed, .tokens = 3000, .depth_percent = 60});
    const NiahSample b = Generate(*task, {.seed = seed, .tokens = 3000, .depth_percent = 80});
    size_t needle = a.context.size();
    for (const NiahSample* sample : {&a, &b}) {
      for (const std::string& one : sample->turns[0].needles) {
        needle = std::min(needle, sample->context.find(one));
      }
    }
    EXPECT_NE(a.turns[0].references, b.turns[0].references) << "what is asked for is another";
    differ += a.context.substr(0, needle) == b.context.substr(0, needle) ? 0 : 1;
  }
  // A needle of other tokens leaves room for another number of words, and now and then a distractor's border
  // becomes the one beside it.
  EXPECT_LE(differ, task->name() == "niah_multikey_1" ? 4 : 0);
}

TEST_P(EveryTaskTest, TurnsHaveNeedlesOfTheirOwnOrAreRefused) {
  const auto task = Task(GetParam());
  const NiahRequest request{.seed = 5, .tokens = 8000, .depth_percent = 10, .turns = 5};
  const auto sample = task->Generate(request, Count);
  if (!sample.ok()) {
    EXPECT_THAT(Message(sample.status()), AllOf(HasSubstr(GetParam()), HasSubstr("--turns 5")));
    return;
  }
  ASSERT_THAT(sample->turns, SizeIs(5));
  EXPECT_LE(*Count(*sample), 8000);
  std::set<std::string> questions, needles;
  for (size_t i = 0; i < 5; ++i) {
    const NiahTurn& turn = sample->turns[i];
    questions.insert(turn.question);
    needles.insert(turn.needles[0]);
    EXPECT_EQ(turn.depth_percent, NiahDepth(request, static_cast<int64_t>(i)));
    EXPECT_NEAR(turn.stands_at_percent, turn.depth_percent, 6);
  }
  EXPECT_THAT(questions, SizeIs(5));
  EXPECT_THAT(needles, SizeIs(5));
}

TEST_P(EveryTaskTest, LimitOfAnAnswerIsTheTasksOrTheRequests) {
  const auto task = Task(GetParam());
  EXPECT_EQ(Generate(*task, {.seed = 1, .tokens = 3000, .answer_tokens = 17}).answer_tokens, 17);
}

INSTANTIATE_TEST_SUITE_P(All, EveryTaskTest, ::testing::ValuesIn(NiahTaskNames()),
                         [](const auto& param) { return param.param; });

TEST(NiahTasksTest, AnswersHaveTheLimitsOfRuler) {
  const auto limit = [](const std::string& task) {
    return Generate(*Task(task), {.seed = 1, .tokens = 3000}).answer_tokens;
  };
  EXPECT_EQ(limit("niah_single_1"), 128);
  EXPECT_EQ(limit("niah_multiquery"), 128);
  EXPECT_EQ(limit("vt"), 30);
  EXPECT_EQ(limit("cwe"), 120);
  EXPECT_EQ(limit("fwe"), 50);
  EXPECT_EQ(limit("qa_1"), 32);
  EXPECT_EQ(limit("qa_2"), 32);
  EXPECT_EQ(limit("single_noise"), 32) << "short: the number is the first thing that follows";
}

TEST(NiahNeedlesTest, SeveralValuesAndQueriesAreAskedForInThePlural) {
  const NiahTurn values = Generate(*Task("niah_multivalue"), {.seed = 1, .tokens = 2000}).turns[0];
  EXPECT_THAT(values.references, SizeIs(4));
  EXPECT_THAT(values.question, ::testing::StartsWith("What are all the special magic numbers for "));
  EXPECT_THAT(values.answer_prefix, ::testing::EndsWith(" mentioned in the provided text are"));
  const NiahTurn queries = Generate(*Task("niah_multiquery"), {.seed = 1, .tokens = 2000}).turns[0];
  EXPECT_THAT(queries.references, SizeIs(4));
  EXPECT_EQ(std::count(queries.question.begin(), queries.question.end(), ','), 3);
  EXPECT_THAT(queries.question, HasSubstr(", and "));
}

TEST(NiahNeedlesTest, FourKeysAreThereAndOneIsAskedFor) {
  const NiahSample sample = Generate(*Task("niah_multikey_1"), {.seed = 1, .tokens = 2000});
  EXPECT_EQ(Times("One of the special magic numbers for ", sample.context), 4);
  EXPECT_THAT(sample.turns[0].references, SizeIs(1));
  EXPECT_THAT(sample.context, ::testing::StartsWith("A special magic number is hidden within"));
}

TEST(NiahNeedlesTest, AmongNeedlesEveryLineIsOne) {
  for (const char* task : {"niah_multikey_2", "niah_multikey_3"}) {
    const NiahSample sample = Generate(*Task(task), {.seed = 1, .tokens = 4000, .depth_percent = 50});
    std::istringstream lines(sample.context);
    std::string line;
    std::getline(lines, line);  // the introduction
    int needles = 0, others = 0;
    while (std::getline(lines, line)) ++(line.starts_with("One of the special magic ") ? needles : others);
    EXPECT_GT(needles, 30) << task;
    EXPECT_LE(others, 1) << "short sentences behind, so that the length is met";
  }
}

// Of 200 keys that were drawn at random two or more would be the same, nearly always.
TEST(NiahNeedlesTest, KeysOfManyTurnsDiffer) {
  const NiahSample sample = Generate(*Task("niah_multiquery"), {.seed = 1, .tokens = 24000, .turns = 50});
  std::set<std::string> needles;
  for (const NiahTurn& turn : sample.turns) {
    for (const std::string& needle : turn.needles) needles.insert(needle.substr(0, needle.find(" is: ")));
  }
  EXPECT_THAT(needles, SizeIs(200));
}

TEST(NiahVariablesTest, ValuesOfManyTurnsDiffer) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::set<std::string> questions;
    for (const NiahTurn& turn : Generate(*Task("vt"), {.seed = seed, .tokens = 16000, .turns = 150}).turns) {
      questions.insert(turn.question);
    }
    EXPECT_THAT(questions, SizeIs(150)) << seed;
  }
}

TEST(NiahVariablesTest, ChainLeadsFromTheValueToEachName) {
  const auto task = Task("vt");
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const NiahSample sample = Generate(*task, {.seed = seed, .tokens = 2000, .depth_percent = 20});
    const NiahTurn& turn = sample.turns[0];
    ASSERT_THAT(turn.references, SizeIs(5));
    size_t at = 0;
    std::string before = turn.needles[0].substr(turn.needles[0].size() - 5);
    EXPECT_THAT(turn.question, HasSubstr(before));
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(turn.needles[i],
                fmt::format("VAR {} = {}{}", turn.references[i], i == 0 ? "" : "VAR ", before));
      const size_t stands = sample.context.find(turn.needles[i]);
      EXPECT_GT(stands, at) << "in order";
      at = stands;
      before = turn.references[i];
    }
  }
}

std::map<std::string, int64_t> WordsOf(const std::string& text) {
  std::map<std::string, int64_t> words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) ++words[word];
  return words;
}

TEST(NiahWordCountsTest, CommonWordsAreTheMostFrequentOfTheList) {
  for (const int64_t tokens : {3000, 9000}) {
    const NiahSample sample = Generate(*Task("cwe"), {.seed = 2, .tokens = tokens});
    std::string list = sample.context.substr(sample.context.find("The list:\n") + 10);
    list = list.substr(0, list.find('\n'));
    std::map<std::string, int64_t> words = WordsOf(std::regex_replace(list, std::regex(R"(\d+\. )"), ""));
    for (const std::string& common : sample.turns[0].references) {
      EXPECT_EQ(words[common], tokens < 4096 ? 6 : 30);
      words.erase(common);
    }
    for (const auto& [word, times] : words) EXPECT_EQ(times, tokens < 4096 ? 1 : 3) << word;
    EXPECT_GT(words.size(), 40u);
  }
}

TEST(NiahWordCountsTest, ThreeCodedWordsAreAheadOfAllOthers) {
  const auto task = Task("fwe");
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const NiahSample sample = Generate(*task, {.seed = seed, .tokens = 2000});
    std::map<std::string, int64_t> words = WordsOf(sample.context.substr(sample.context.find('\n') + 1));
    const std::vector<std::string>& asked = sample.turns[0].references;
    ASSERT_THAT(asked, SizeIs(3));
    EXPECT_GT(words["...."], words[asked[0]]);
    EXPECT_GT(words[asked[0]], words[asked[1]]);
    EXPECT_GT(words[asked[1]], words[asked[2]]);
    for (const auto& [word, times] : words) {
      const bool known = word == "...." || std::find(asked.begin(), asked.end(), word) != asked.end();
      EXPECT_TRUE(known || times < words[asked[2]]) << word;
    }
  }
}

TEST(NiahKeyValuesTest, ContextIsOneJsonObject) {
  const auto task = Task("kv_retrieval");
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const NiahSample sample = Generate(*task, {.seed = seed, .tokens = 3000, .depth_percent = 50});
    const json::object object = json::parse(sample.context.substr(sample.context.find('{'))).as_object();
    const std::string key = sample.turns[0].question.substr(6, 36);
    EXPECT_EQ(object.at(key).as_string(), sample.turns[0].references[0]);
    EXPECT_GT(object.size(), 15u);
  }
}

// Who plays the story through, sentence by sentence, gives the reference.
TEST(NiahStoriesTest, TextItselfGivesTheAnswer) {
  for (const std::string name : {"babi_qa1", "babi_qa2", "babi_qa3"}) {
    const auto task = Task(name);
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const NiahSample sample = Generate(
          *task, {.seed = seed, .tokens = 2500, .depth_percent = static_cast<double>(seed % 3 * 50)});
      std::map<std::string, std::vector<std::string>> places;  // of people
      std::map<std::string, std::pair<std::string, size_t>> owners;
      const std::regex told(R"(([A-Z]\w+) (went to|took) the (\w+)\.)");
      for (std::sregex_iterator at(sample.context.begin(), sample.context.end(), told), end; at != end;
           ++at) {
        const std::string who = (*at)[1], what = (*at)[3];
        if ((*at)[2] == "took") {
          owners[what] = {who, places[who].size()};
        } else {
          places[who].push_back(what);
        }
      }
      const NiahTurn& turn = sample.turns[0];
      std::smatch asked;
      std::string answer;
      if (std::regex_search(turn.question, asked, std::regex(R"(Where was the (\w+) before the (\w+)\?)"))) {
        const std::vector<std::string>& of = places[owners.at(asked[1]).first];
        answer = *(std::find(of.begin(), of.end(), asked[2]) - 1);
      } else if (std::regex_search(turn.question, asked, std::regex(R"(Where is the (\w+)\?)"))) {
        answer = places[owners.at(asked[1]).first].back();
      } else if (std::regex_search(turn.question, asked, std::regex(R"(Where is (\w+)\?)"))) {
        answer = places[asked[1]].back();
      }
      EXPECT_THAT(turn.references, ElementsAre(answer)) << name << " " << seed;
      EXPECT_EQ(turn.needles.size(), static_cast<size_t>(name.back() - '0'));
    }
  }
}

// Prose in which these people go everywhere.
std::string ProseOf(const std::vector<std::string>& people) {
  std::string told;
  for (const std::string& who : people) {
    for (const std::string_view place : kStoryPlaces) told += fmt::format("{} went to the {}. ", who, place);
  }
  std::string text;
  while (text.size() < 30000) text += told + "Then nothing happened for a while. ";
  return text;
}

TEST(NiahStoriesTest, OthersAreToldOfThanTheProseTellsOf) {
  const auto task = Task("babi_qa2", ProseOf({"Agnes"}));
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const NiahSample sample = Generate(*task, {.seed = seed, .tokens = 2500, .depth_percent = 50});
    for (const std::string& needle : sample.turns[0].needles) {
      EXPECT_THAT(needle, Not(HasSubstr("Agnes"))) << seed;
    }
  }
}

TEST(NiahStoriesTest, SentenceThatTheProseTellsIsNamed) {
  const auto task = Task(
      "babi_qa1", ProseOf({"Agnes", "Boris", "Clara", "Dmitri", "Elsa", "Felix", "Greta", "Hugo", "Ingrid",
                           "Jasper", "Kirsten", "Leopold", "Mabel", "Norbert", "Olga", "Percy"}));
  const auto sample = task->Generate({.seed = 1, .tokens = 4000, .depth_percent = 50}, Count);
  EXPECT_EQ(sample.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(sample.status()), ::testing::ContainsRegex("[A-Z][a-z]+ went to the [a-z]+"));
}

TEST(NiahRecordsTest, EveryOrderOfTheTextIsAReference) {
  const NiahSample sample = Generate(*Task("records"), {.seed = 4, .tokens = 4096});
  const std::regex order(R"(Order (\d+): (\d+) pieces of (\S+) for (\d+) dollars\.)");
  std::vector<std::string> told;
  for (std::sregex_iterator at(sample.context.begin(), sample.context.end(), order), end; at != end; ++at) {
    told.push_back(fmt::format(R"({{"order":{},"item":"{}","count":{},"price":{}}})", (*at)[1].str(),
                               (*at)[3].str(), (*at)[2].str(), (*at)[4].str()));
  }
  EXPECT_EQ(told, sample.turns[0].references);
  EXPECT_THAT(told, SizeIs(16));
  EXPECT_GT(sample.answer_tokens, 16 * 40);
}

TEST(NiahQuestionsTest, GoldParagraphsStandAmongOthersAndAreNumbered) {
  const NiahSample squad = Generate(*Task("qa_1"), {.seed = 1, .tokens = 3000, .depth_percent = 0});
  EXPECT_THAT(squad.context, HasSubstr("\n\nDocument 1:\n" + squad.turns[0].needles[0]));
  EXPECT_THAT(squad.turns[0].references, SizeIs(2)) << "each answer once";
  const NiahSample hotpot = Generate(*Task("qa_2"), {.seed = 1, .tokens = 3000, .depth_percent = 100});
  EXPECT_THAT(hotpot.turns[0].needles, SizeIs(2));
  EXPECT_THAT(hotpot.turns[0].needles[0], HasSubstr(" 1\n Sentence 0 of 1"));
}

// SQuAD's form: of each paragraph so many questions.
std::string SquadOf(const std::vector<std::string>& contexts, int questions) {
  json::array paragraphs;
  for (const std::string& context : contexts) {
    json::array qas;
    for (int i = 0; i < questions; ++i) {
      qas.push_back(json::object{{"question", fmt::format("What is {} of it?", i)},
                                 {"answers", json::array{json::object{{"text", "this"}}}}});
    }
    paragraphs.push_back(json::object{{"context", context}, {"qas", std::move(qas)}});
  }
  return json::serialize(json::object{{"data", json::array{json::object{{"paragraphs", paragraphs}}}}});
}

TEST(NiahQuestionsTest, BlankParagraphsAreNoFillerAndAnswerNothing) {
  json::value blanks = json::parse(Squad());
  json::array& paragraphs = blanks.at("data").at(0).at("paragraphs").as_array();
  for (const char* blank : {"", " \n\t "}) {
    paragraphs.push_back(json::object{{"context", blank}, {"qas", json::array{}}});
  }
  const auto task = MakeNiahTask("qa_1", {.squad = json::serialize(blanks), .squad_name = "s.json"});
  ASSERT_TRUE(task.ok()) << task.status();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const NiahSample sample = Generate(**task, {.seed = seed, .tokens = 8000, .depth_percent = 50});
    EXPECT_THAT(sample.context, Not(::testing::ContainsRegex("Document [0-9]+:\n[ \n\t]")));
  }
  const auto refused = MakeNiahTask("qa_1", {.squad = SquadOf({"Town.", " \n"}, 1), .squad_name = "s.json"});
  EXPECT_THAT(Message(refused.status()),
              AllOf(HasSubstr("s.json"), HasSubstr("What is 0 of it?"), HasSubstr("blank")));
}

TEST(NiahQuestionsTest, TurnsAskAboutDifferentParagraphs) {
  std::vector<std::string> contexts;
  for (int i = 0; i < 8; ++i) {
    contexts.emplace_back();
    for (int word = 0; word < 90; ++word) contexts.back() += fmt::format("word{}x{} ", i, word);
  }
  const auto task = MakeNiahTask("qa_1", {.squad = SquadOf(contexts, 10), .squad_name = "s.json"});
  ASSERT_TRUE(task.ok()) << task.status();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::set<std::string> needles;
    for (const NiahTurn& turn : Generate(**task, {.seed = seed, .tokens = 3000, .turns = 4}).turns) {
      needles.insert(turn.needles.begin(), turn.needles.end());
    }
    EXPECT_THAT(needles, SizeIs(4)) << seed;
  }
  const auto refused = (*task)->Generate({.seed = 1, .tokens = 3000, .turns = 9}, Count);
  EXPECT_THAT(Message(refused.status()),
              AllOf(HasSubstr("s.json"), HasSubstr("8 questions about different"), HasSubstr("--turns 9")));
}

TEST(NiahQuestionsTest, OtherFilesAreRefused) {
  const auto refused = [](const std::string& text) {
    return Message(MakeNiahTask("qa_1", {.squad = text, .squad_name = "s.json"}).status());
  };
  EXPECT_THAT(refused("not json"), AllOf(HasSubstr("s.json"), HasSubstr("SQuAD")));
  EXPECT_THAT(refused("[1]"), HasSubstr("SQuAD"));
  EXPECT_THAT(refused(R"({"data": [{"paragraphs": "x"}]})"), HasSubstr("SQuAD"));
  EXPECT_THAT(refused(R"({"data": []})"), HasSubstr("no question"));
  EXPECT_THAT(Message(MakeNiahTask("qa_1", {}).status()), HasSubstr("--squad"));
  EXPECT_THAT(Message(MakeNiahTask("qa_2", {}).status()), HasSubstr("--hotpotqa"));
}

TEST(NiahHaystackTest, TooShortAHaystackSaysHowManyTokensItGives) {
  const auto sample = Task("niah_single_2")->Generate({.seed = 1, .tokens = 100000}, Count);
  EXPECT_EQ(sample.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(sample.status()),
              AllOf(HasSubstr("prose.txt"), HasSubstr("too short for 100000 tokens"),
                    ::testing::ContainsRegex("a sample has [0-9]{5}")));
}

TEST(NiahWordsTest, AllWordsDifferAndNoneIsAPartOfAKey) {
  std::set<std::string> words;
  for (uint64_t i = 0; i < 40000; ++i) words.insert(WordOf(i * 6));
  EXPECT_THAT(words, SizeIs(40000));
  for (uint64_t i = 0; i < 4096; ++i) {
    for (uint64_t j = 0; j < 4096; j += 37) {
      const bool inside = i != j && WordOf(i).find(WordOf(j)) != std::string::npos;
      EXPECT_FALSE(inside) << WordOf(i) << " " << WordOf(j);
    }
  }
}

TEST(NiahWordsTest, UuidsAreOfVersionFour) {
  RngSequence random(Rng(1));
  const std::regex form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> all;
  for (int i = 0; i < 1000; ++i) {
    all.insert(RandomUuid(random));
    EXPECT_TRUE(std::regex_match(*all.rbegin(), form)) << *all.rbegin();
  }
  EXPECT_THAT(all, SizeIs(1000));
}

}  // namespace
}  // namespace palimpsest
