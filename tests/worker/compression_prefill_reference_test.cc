// What is picked of spans and by a window that slides (compression_reference.h).
#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

TEST_F(CompressionReferenceTest, AnchoredSnapKv) {
  for (const bool visible : {false, true}) {
    Request request = CompressionRequest(kAnchored, "snapkv:budget=120,window=20,kernel=5",
                                         RolePrompt({150, 90, 131}, 37), kAnswer);
    request.question_visible = visible;
    Ask(request);
    const int64_t question = prompt_ - context_;
    for (int64_t i = 0; i < kPrefix; ++i) Run(i, i);
    const Cache anchor = cache_;
    Cache spans = reference_.Empty();
    std::vector<std::vector<double>> scores(cache_.size());
    int64_t first = kPrefix;
    for (const int64_t size : {150, 90, 131}) {
      cache_ = anchor;
      for (int64_t i = 0; i < size; ++i) Run(first + i, kPrefix + i);
      if (visible) {
        for (int64_t i = 0; i < question; ++i) Run(context_ + i, kPrefix + size + i);
      }
      for (size_t head = 0; head < cache_.size(); ++head) {
        const reference::Rows votes = Votes(head, 20, kPrefix, static_cast<size_t>(size));
        const bool last = first + size == context_;
        const std::vector<double> own = reference::SnapKv(votes, spec_, last && !visible);
        scores[head].insert(scores[head].end(), own.begin(), own.end());
        spans[head].insert(spans[head].end(), cache_[head].begin() + kPrefix,
                           cache_[head].begin() + kPrefix + size);
      }
      first += size;
    }
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<int32_t> picks = reference::Top(scores[head], spec_.budget.value - kPrefix);
      for (int32_t& pick : picks) pick += kPrefix;
      std::vector<int32_t> engines = HeadOf(answer_.outcome.kept, head);
      engines.erase(engines.begin(), engines.begin() + kPrefix);
      ComparePicks(picks, engines);
    }
    cache_ = anchor;
    for (size_t head = 0; head < cache_.size(); ++head)
      cache_[head].insert(cache_[head].end(), spans[head].begin(), spans[head].end());
    KeepAsTheEngine(answer_.outcome.kept, [](int32_t, int64_t rank) { return rank; });
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      const std::vector<double> logits = Run(i, spec_.budget.value + i - context_).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
  }
  ExpectPicks();
}

// Nothing is dropped: the spans stand behind each other, each as it was read.
TEST_F(CompressionReferenceTest, AnchoredFull) {
  Ask(CompressionRequest(kAnchored, "full", RolePrompt({150, 90, 131}, 37), kAnswer));
  for (int64_t i = 0; i < kPrefix; ++i) Run(i, i);
  const Cache anchor = cache_;
  Cache all = anchor;
  int64_t first = kPrefix;
  for (const int64_t size : {150, 90, 131}) {
    cache_ = anchor;
    for (int64_t i = 0; i < size; ++i) Run(first + i, kPrefix + i);
    for (size_t head = 0; head < cache_.size(); ++head) {
      for (int64_t i = 0; i < size; ++i) {
        all[head].push_back(cache_[head][static_cast<size_t>(kPrefix + i)]);
        reference_.Move(&all[head].back(), first + i);
      }
    }
    first += size;
  }
  cache_ = all;
  for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
    const std::vector<double> logits = Run(i, i).logits;
    if (i + 1 == prompt_) ExpectPromptLogits(logits);
    if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
  }
}

// Sinks and the recent, numbered by slot anew for each token.
TEST_F(CompressionReferenceTest, StreamingSlides) {
  struct Shape {
    const char* policy;
    int64_t prefix, document, question;
  };
  for (const Shape& shape : std::vector<Shape>{{"streaming:sink=4,recent=60", 21, 300, 37},
                                               {"streaming:sink=40,recent=30", 21, 300, 37},
                                               {"streaming:sink=4,recent=60", 0, 300, 0},
                                               {"streaming:sink=0,recent=50", 0, 200, 10},
                                               {"streaming:sink=4,recent=1", 0, 100, 10},
                                               {"streaming:sink=4,recent=2", 0, 100, 0},
                                               {"streaming:sink=5,recent=20", 0, 30, 70},
                                               {"streaming:sink=50,recent=20", 0, 30, 30},
                                               {"streaming:sink=4,recent=30", 0, 20, 0}}) {
    Ask(CompressionRequest(kExact, shape.policy,
                           RolePrompt({shape.document}, shape.question, 1, shape.prefix), kAnswer));
    const int64_t total = spec_.sink + spec_.recent.value;
    const int64_t front = std::min(std::max(shape.prefix, spec_.sink), context_);
    const auto drop = [&](int64_t tokens) {  // the oldest behind the front, to so many tokens in all
      for (auto& head : cache_) {
        while (std::ssize(head) > tokens) head.erase(head.begin() + front);
        for (size_t i = 0; i < head.size(); ++i) reference_.Move(&head[i], static_cast<int64_t>(i));
      }
    };
    for (int64_t i = 0; i + 1 < prompt_ + kAnswer; ++i) {
      if (i == context_) drop(total);
      if (i >= prompt_) drop(total - 1);
      const std::vector<double> logits = Run(i, std::ssize(cache_[0])).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    std::cout << shape.policy << ": largest error of an answer's log-probability " << answer_error_ << "\n";
  }
}

}  // namespace
}  // namespace palimpsest::testing
