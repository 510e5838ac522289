#include "apps/niah/haystack.h"

#include <algorithm>
#include <array>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

constexpr std::array<std::string_view, 5> kNoise = {
    "The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."};

class NoiseHaystack final : public Haystack {
 public:
  uint64_t starts() const override { return 1; }
  std::optional<int64_t> units() const override { return std::nullopt; }
  std::string_view name() const override { return "noise"; }
  std::vector<std::string> Pieces(uint64_t /*start*/, int64_t units) const override {
    std::vector<std::string> lines;
    for (int64_t i = 0; i < units; ++i) {
      const auto sentence = static_cast<size_t>(i) % kNoise.size();
      if (sentence == 0) {
        lines.emplace_back();
      } else {
        lines.back() += ' ';
      }
      lines.back() += kNoise[sentence];
    }
    return lines;
  }
  std::string_view separator() const override { return "\n"; }
};

constexpr std::string_view kSpaces = " \t\r\n\f\v";
constexpr std::array<std::string_view, 6> kClosing = {"\"", "'", ")", "]", "\u201D", "\u2019"};

// `He said, "Go."` ends a sentence; so does "Mr.", which costs nothing here.
bool EndsSentence(std::string_view word) {
  for (bool cut = true; cut;) {
    cut = false;
    for (const std::string_view closing : kClosing) {
      if (!word.ends_with(closing)) continue;
      word.remove_suffix(closing.size());
      cut = true;
    }
  }
  return word.ends_with('.') || word.ends_with('!') || word.ends_with('?');
}

class ProseHaystack final : public Haystack {
 public:
  ProseHaystack(std::string_view text, std::string_view name) : name_(name) {
    bool begins = true;
    for (size_t at = text.find_first_not_of(kSpaces); at != std::string_view::npos;) {
      const size_t end = std::min(text.find_first_of(kSpaces, at), text.size());
      if (begins) starts_.push_back(words_.size());
      words_.emplace_back(text.substr(at, end - at));
      begins = EndsSentence(words_.back());
      at = text.find_first_not_of(kSpaces, end);
    }
  }

  uint64_t starts() const override { return starts_.size(); }
  std::optional<int64_t> units() const override { return static_cast<int64_t>(words_.size()); }
  std::string_view name() const override { return name_; }
  std::vector<std::string> Pieces(uint64_t start, int64_t units) const override {
    std::vector<std::string> sentences;
    size_t at = starts_[start % starts_.size()];
    bool begins = true;
    for (int64_t i = 0; i < units; ++i, at = (at + 1) % words_.size()) {
      if (begins) {
        sentences.emplace_back();
      } else {
        sentences.back() += ' ';
      }
      sentences.back() += words_[at];
      begins = EndsSentence(words_[at]);
    }
    if (!begins) EndCutSentence(&sentences.back());
    return sentences;
  }
  std::string_view separator() const override { return " "; }

 private:
  // A needle after half a sentence would read as its end.
  static void EndCutSentence(std::string* sentence) {
    while (!sentence->empty() && std::string_view(",;:-").find(sentence->back()) != std::string_view::npos) {
      sentence->pop_back();
    }
    *sentence += '.';
  }

  const std::string name_;
  std::vector<std::string> words_;
  std::vector<size_t> starts_;  // first words of sentences
};

}  // namespace

std::unique_ptr<Haystack> MakeNoiseHaystack() { return std::make_unique<NoiseHaystack>(); }

absl::StatusOr<std::unique_ptr<Haystack>> MakeProseHaystack(std::string_view text, std::string_view name) {
  constexpr uint64_t kSentencesMin = 10;
  if (const absl::Status utf8 = CheckUtf8(text); !utf8.ok()) {
    return Error(utf8.code(), "haystack {}: {}", Quoted(name, 1024), Message(utf8));
  }
  auto prose = std::make_unique<ProseHaystack>(text, name);
  if (prose->starts() < kSentencesMin) {
    return InvalidArgument(
        "haystack {} has too few sentences, {} where {} or more are needed: give a longer text in prose",
        Quoted(name, 1024), prose->starts(), kSentencesMin);
  }
  return prose;
}

}  // namespace palimpsest
