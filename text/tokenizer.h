// Byte-level BPE: text to token ids and back, exactly as the model was trained.
//
// The split of text into words is by the model's `tokenizer.ggml.pre`: smollm, gpt-2, llama-bpe, qwen2 (PCRE2
// with JIT, fixed patterns only). Any other name is Unimplemented and lists these.
//
// Input  : any bytes; invalid UTF-8 is InvalidArgument naming the byte offset (CheckUtf8), never a crash.
// Limits : 2^20 tokens of at most 1 KiB, 2^22 merges; text 1 GiB, one word of it 16 MiB: InvalidArgument.
// Unknown: a byte for which the vocabulary has no token gives no id, as in public byte-level tokenizers
//          (SmolLM2 lacks six control characters and the lead bytes of unassigned planes). This is the one
//          case in which Decode(Encode(x)) != x.
// Threads: const methods from any thread.
// Source : Sennrich et al. 2016 (BPE); Radford et al. 2019 (bytes as characters, GPT-2).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/utf8.h"

namespace palimpsest {

class GgufFile;

// What a tokenizer is made from; FromGguf fills it from a model file.
struct TokenizerData {
  std::string pre;                  // name of the split
  std::vector<std::string> tokens;  // by id, in the byte-level alphabet; special tokens as written; each once
  // By id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty = all normal.
  std::vector<int32_t> types;
  std::vector<std::string> merges;  // "left right", best first
  int32_t bos = -1, eos = -1;       // -1: none
  std::vector<int32_t> end_tokens;  // all ids that end an answer (eos, eot, ...)
  bool add_bos = false;
};

class Tokenizer {
 public:
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromGguf(const GgufFile& file);
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Create(TokenizerData data);
  virtual ~Tokenizer() = default;

  // kParse: control and user-defined tokens in the text become their one id, the longest first. kAsText: the
  // text is the user's, "<|im_end|>" in it is ten characters and no control token comes out.
  enum class Special { kParse, kAsText };

  // Ids of `text`, nothing added in front or behind.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, Special special) const = 0;
  // Bytes of `ids`, special tokens as written when `with_special`; may end inside a UTF-8 character (use
  // Detokenizer). Ids outside of the vocabulary give nothing.
  virtual std::string Decode(std::span<const int32_t> ids, bool with_special) const = 0;

  virtual int64_t vocabulary_size() const = 0;
  virtual int32_t bos() const = 0;  // -1: none
  virtual int32_t eos() const = 0;  // -1: none
  virtual bool add_bos() const = 0;
  virtual bool IsEnd(int32_t id) const = 0;      // ends an answer
  virtual bool IsSpecial(int32_t id) const = 0;  // control or unknown; user-defined tokens are text
  virtual std::string_view TokenText(int32_t id) const = 0;  // bytes; special tokens as written (bos_token)
  // SHA-256 over all of TokenizerData, hex (part of document keys).
  virtual const std::string& hash() const = 0;
};

// Turns a stream of ids into text that never splits a UTF-8 character: what is incomplete waits for the next
// id. Bytes that can never become UTF-8 come out as U+FFFD.
class Detokenizer {
 public:
  explicit Detokenizer(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  std::string Push(int32_t id);  // text that became complete; special tokens give none
  std::string Finish();          // what is left, incomplete characters as U+FFFD

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;  // at most 3 bytes of an unfinished character
};

}  // namespace palimpsest
