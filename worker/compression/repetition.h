// What repeating a text says of its tokens: for each query head the attention that each of them got while its
// part was repeated.
//
// Memory : 4 bytes for each query head and token.
// Threads: one at a time; At from several.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace palimpsest {

class Repetition {
 public:
  // Tokens [first, end) of the prompt, of so many query heads in all layers; nothing is known of them yet.
  void Begin(int64_t query_heads, int64_t first, int64_t end) {
    first_ = done_ = first;
    tokens_ = end - first;
    attention_.assign(static_cast<size_t>(query_heads * tokens_), 0.0f);
  }
  int64_t first() const { return first_; }
  int64_t end() const { return first_ + tokens_; }
  int64_t done() const { return done_; }  // of tokens before this it is known
  bool complete() const { return done_ == end(); }
  // Of tokens done() and so many more.
  std::span<float> Next(int64_t query_head, int64_t tokens) {
    return std::span(attention_)
        .subspan(static_cast<size_t>(query_head * tokens_ + done_ - first_), static_cast<size_t>(tokens));
  }
  void Advance(int64_t tokens) { done_ += tokens; }
  float At(int64_t query_head, int32_t token) const {
    return attention_[static_cast<size_t>(query_head * tokens_ + token - first_)];
  }

 private:
  int64_t first_ = 0, done_ = 0, tokens_ = 0;
  std::vector<float> attention_;
};

}  // namespace palimpsest
