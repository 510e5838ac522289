// A question and the paragraphs that answer it among others, from a file of questions and paragraphs.
//
// Source: RULER's qa (gold paragraphs among paragraphs of other questions, numbered "Document N:"); the
// wording is ours. The first gold paragraph stands at the depth asked for.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <numeric>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/quote.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

struct Item {
  std::string question;
  std::vector<std::string> answers;
  std::vector<size_t> gold;  // paragraphs, by number
};

// Each paragraph once, in the order of the file.
struct Questions {
  std::vector<std::string> paragraphs;
  std::vector<Item> items;
  size_t Add(std::string paragraph) {
    const auto [found, is_new] = numbers_.emplace(std::move(paragraph), paragraphs.size());
    if (is_new) paragraphs.push_back(found->first);
    return found->second;
  }

 private:
  std::map<std::string, size_t> numbers_;
};

std::string Text(const json::value& value) { return std::string(value.as_string()); }

// {"data": [{"paragraphs": [{"context", "qas": [{"question", "answers": [{"text"}]}]}]}]}; what has no answer
// is left out. Throws where the form is another.
void ReadSquad(const json::value& root, Questions* questions) {
  for (const json::value& article : root.at("data").as_array()) {
    for (const json::value& paragraph : article.at("paragraphs").as_array()) {
      const size_t number = questions->Add(Text(paragraph.at("context")));
      for (const json::value& one : paragraph.at("qas").as_array()) {
        Item item{.question = Text(one.at("question")), .answers = {}, .gold = {number}};
        for (const json::value& answer : one.at("answers").as_array()) {
          const std::string text = Text(answer.at("text"));
          if (std::find(item.answers.begin(), item.answers.end(), text) == item.answers.end() &&
              !text.empty()) {
            item.answers.push_back(text);
          }
        }
        if (!item.answers.empty()) questions->items.push_back(std::move(item));
      }
    }
  }
}

// [{"question", "answer", "context": [[title, [sentence, ...]], ...], "supporting_facts": [[title, n],
// ...]}].
void ReadHotpotQa(const json::value& root, Questions* questions) {
  for (const json::value& one : root.as_array()) {
    Item item{.question = Text(one.at("question")), .answers = {Text(one.at("answer"))}, .gold = {}};
    std::map<std::string, size_t> by_title;
    for (const json::value& paragraph : one.at("context").as_array()) {
      const std::string title = Text(paragraph.at(0));
      std::string text = title + "\n";
      for (const json::value& sentence : paragraph.at(1).as_array()) text += Text(sentence);
      by_title[title] = questions->Add(std::move(text));
    }
    for (const json::value& fact : one.at("supporting_facts").as_array()) {
      const auto found = by_title.find(Text(fact.at(0)));
      if (found == by_title.end()) continue;
      if (std::find(item.gold.begin(), item.gold.end(), found->second) == item.gold.end()) {
        item.gold.push_back(found->second);
      }
    }
    if (!item.gold.empty() && !item.answers[0].empty()) questions->items.push_back(std::move(item));
  }
}

// Its words, with what is between them before each.
std::vector<std::string_view> WordsOf(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  std::vector<std::string_view> words;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = std::min(text.find_first_not_of(kSpaces, at), text.size());
    const size_t end = std::min(text.find_first_of(kSpaces, begin), text.size());
    if (begin < end) words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

class QuestionsTask final : public NiahTask {
 public:
  QuestionsTask(NiahTaskTraits traits, Questions questions, std::string_view file)
      : NiahTask(std::move(traits)), file_(file), questions_(std::move(questions)) {}

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    std::vector<bool> is_gold(questions_.paragraphs.size());
    PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<const Item*> items, DrawItems(request, random, &is_gold));
    std::vector<Insertion> gold;
    std::vector<NiahTurn> turns;
    for (size_t i = 0; i < items.size(); ++i) {
      turns.push_back(TurnOf(*items[i], NiahDepth(request, static_cast<int64_t>(i))));
      for (const std::string& needle : turns.back().needles) {
        const bool first = &needle == &turns.back().needles.front();
        gold.push_back({needle, first ? turns.back().depth_percent : static_cast<double>(random.Below(101))});
      }
    }
    RngSequence text(Rng(request.seed, NiahTextStream(name(), request)));
    std::vector<size_t> others(is_gold.size());
    std::iota(others.begin(), others.end(), size_t{0});
    Shuffle(others, text);
    others.erase(std::remove_if(others.begin(), others.end(), [&](size_t i) { return is_gold[i]; }),
                 others.end());
    Haystacks haystack{.units = 0, .name = file_};
    for (const size_t other : others) {
      *haystack.units += static_cast<int64_t>(WordsOf(questions_.paragraphs[other]).size());
    }
    if (*haystack.units == 0) return InvalidArgument("{} has no other paragraphs", Quoted(file_, 1024));
    return LongestSample(request, count, haystack, [&](int64_t units, int64_t) {
      return SampleOf(request, turns, gold, others, units);
    });
  }

 private:
  // None has a gold paragraph of another, which could not stand at the depths of both.
  absl::StatusOr<std::vector<const Item*>> DrawItems(const NiahRequest& request, RngSequence& random,
                                                     std::vector<bool>* is_gold) const {
    constexpr int64_t kTriesMax = 1000;  // for each question
    if (request.turns > static_cast<int64_t>(questions_.items.size())) {
      return InvalidArgument("{} has {} questions with answers, and --turns {} asks for more",
                             Quoted(file_, 1024), questions_.items.size(), request.turns);
    }
    std::vector<const Item*> items;
    for (int64_t tries = 0; static_cast<int64_t>(items.size()) < request.turns; ++tries) {
      if (tries == kTriesMax * request.turns) {
        return InvalidArgument(
            "{} gave {} questions about different paragraphs in {} tries, and --turns {} asks for more",
            Quoted(file_, 1024), items.size(), tries, request.turns);
      }
      const Item& item = questions_.items[random.Below(questions_.items.size())];
      if (std::any_of(item.gold.begin(), item.gold.end(), [&](size_t gold) { return (*is_gold)[gold]; })) {
        continue;
      }
      for (const size_t gold : item.gold) (*is_gold)[gold] = true;
      items.push_back(&item);
    }
    return items;
  }

  NiahTurn TurnOf(const Item& item, double depth) const {
    NiahTurn turn{
        .question = fmt::format("Answer from the documents, in as few words as you can. {}", item.question),
        .answer_prefix = " Answer:",
        .references = item.answers,
        .needles = {},
        .depth_percent = depth};
    for (const size_t gold : item.gold) turn.needles.push_back(questions_.paragraphs[gold]);
    return turn;
  }

  // So many words of the other paragraphs; the last one is cut.
  NiahSample SampleOf(const NiahRequest& request, std::vector<NiahTurn> turns,
                      const std::vector<Insertion>& gold, const std::vector<size_t>& others,
                      int64_t units) const {
    std::vector<std::string> pieces;
    for (size_t i = 0; i < others.size() && units > 0; ++i) {
      const std::string& paragraph = questions_.paragraphs[others[i]];
      const std::vector<std::string_view> words = WordsOf(paragraph);
      if (words.empty()) continue;
      const auto taken = std::min(static_cast<size_t>(units), words.size());
      pieces.emplace_back(paragraph.substr(
          0, static_cast<size_t>(words[taken - 1].end() - std::string_view(paragraph).begin())));
      units -= static_cast<int64_t>(taken);
    }
    const Woven woven = Weave(pieces, gold);
    for (NiahTurn& turn : turns) {
      for (size_t i = 0; i < gold.size(); ++i) {
        if (gold[i].text == turn.needles[0]) turn.stands_at_percent = woven.stands_at_percent[i];
      }
    }
    NiahSample sample{.context = "I will ask questions that some of the following documents answer.",
                      .turns = std::move(turns),
                      .answer_tokens = AnswerTokens(request)};
    for (size_t i = 0; i < woven.pieces.size(); ++i) {
      sample.context += fmt::format("\n\nDocument {}:\n{}", i + 1, woven.pieces[i]);
    }
    return sample;
  }

  const std::string file_;
  const Questions questions_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NiahTask>> MakeQuestions(NiahTaskTraits traits, QuestionsFormat format,
                                                        std::string_view text, std::string_view name) {
  const bool squad = format == QuestionsFormat::kSquad;
  Questions questions;
  try {
    const json::value root = json::parse(json::string_view(text.data(), text.size()));
    squad ? ReadSquad(root, &questions) : ReadHotpotQa(root, &questions);
  } catch (const std::exception& error) {
    return InvalidArgument("{} is no file of questions in {}'s format: {}", Quoted(name, 1024),
                           squad ? "SQuAD" : "HotpotQA", error.what());
  }
  if (questions.items.empty())
    return InvalidArgument("{} has no question with an answer", Quoted(name, 1024));
  for (const Item& item : questions.items) {
    for (const size_t gold : item.gold) {
      if (!WordsOf(questions.paragraphs[gold]).empty()) continue;
      return InvalidArgument("{}: the paragraph that answers {} is blank", Quoted(name, 1024),
                             Quoted(item.question, 256));
    }
  }
  return std::make_unique<QuestionsTask>(std::move(traits), std::move(questions), name);
}

}  // namespace palimpsest
