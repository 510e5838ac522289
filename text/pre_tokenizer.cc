#include "text/pre_tokenizer.h"

#include <limits>

#include "proto/base/quote.h"
#include "proto/base/status.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace palimpsest {
namespace {

// White space as Unicode defines it, to stand inside [ ]. Not \s, which in PCRE2 has U+180E too.
#define WHITE R"(\t-\r\x85\p{Z})"
// One character that is neither white space nor letter nor digit.
#define OTHER "[^" WHITE R"(\p{L}\p{N}])"
// White space up to, not including, the last one before a word: that one belongs to the word.
#define SPACES "[" WHITE "]+(?![^" WHITE "])"
#define REST_OF_SPACES "[" WHITE "]+"
// Contractions, as GPT-2 and, in any case, its successors split them.
#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
// Letters may take one sign in front, signs take the newlines behind, newlines take the white space in front.
#define WORDS_SINCE_CL100K(digits)                                                              \
  "(?i:" CONTRACTIONS R"()|[^\r\n\p{L}\p{N}]?\p{L}+|)" digits "| ?" OTHER R"(+[\r\n]*|[)" WHITE \
  R"(]*[\r\n]+|)" SPACES "|" REST_OF_SPACES

struct Pattern {
  std::string_view name;
  const char* regex;
  bool whole_words_first;
};

constexpr Pattern kPatterns[] = {
    // Digits are cut out one by one before GPT-2's pattern sees the pieces between them, so to white space a
    // digit
    // looks like the end of the text: all of "  " in "a  5" is one word.
    {"smollm",
     CONTRACTIONS R"(|\p{N}| ?\p{L}+| ?)" OTHER "+|[" WHITE "]+(?![^" WHITE R"(\p{N}])|)" REST_OF_SPACES,
     false},
    {"gpt-2", CONTRACTIONS R"(| ?\p{L}+| ?\p{N}+| ?)" OTHER "+|" SPACES "|" REST_OF_SPACES, false},
    {"llama-bpe", WORDS_SINCE_CL100K(R"(\p{N}{1,3})"), true},
    {"qwen2", WORDS_SINCE_CL100K(R"(\p{N})"), false},
};

#undef WORDS_SINCE_CL100K
#undef CONTRACTIONS
#undef REST_OF_SPACES
#undef SPACES
#undef OTHER
#undef WHITE

struct PcreDelete {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return fmt::format("PCRE2 error {}", code);
  return fmt::format("{} (PCRE2 error {})", reinterpret_cast<const char*>(buffer), code);
}

class PcrePreTokenizer final : public PreTokenizer {
 public:
  PcrePreTokenizer(const Pattern& pattern, pcre2_code* code) : pattern_(pattern), code_(code) {}

  absl::Status Split(std::string_view text, std::vector<uint32_t>* ends) const override {
    ends->clear();
    const std::unique_ptr<pcre2_match_data, PcreDelete> match(pcre2_match_data_create(1, nullptr));
    const std::unique_ptr<pcre2_match_context, PcreDelete> context(pcre2_match_context_create(nullptr));
    if (match == nullptr || context == nullptr)
      return ResourceExhausted("no memory to split text into words");
    // One word costs at most a few steps for each of its characters, one more for each that it gives back.
    const uint64_t steps = 10'000 + 8 * uint64_t{text.size()};
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<uint64_t>(
                                             steps, std::numeric_limits<uint32_t>::max())));
    size_t at = 0;
    while (at < text.size()) {
      const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    PCRE2_NO_UTF_CHECK, match.get(), context.get());
      if (found < 0) {
        return ResourceExhausted(
            "splitting {} bytes of text as {} failed at byte {}: {}; send it in smaller parts", text.size(),
            pattern_.name, at, PcreMessage(found));
      }
      const size_t* range = pcre2_get_ovector_pointer(match.get());
      PALIMPSEST_CHECK(range[0] == at && range[1] > at, "a word must begin at byte {}", at);
      at = range[1];
      ends->push_back(static_cast<uint32_t>(at));
    }
    return absl::OkStatus();
  }

  bool whole_words_first() const override { return pattern_.whole_words_first; }

 private:
  const Pattern& pattern_;  // of kPatterns
  const std::unique_ptr<pcre2_code, PcreDelete> code_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const PreTokenizer>> PreTokenizer::Create(std::string_view name) {
  std::string known;
  for (const Pattern& pattern : kPatterns) {
    if (pattern.name != name) {
      known += fmt::format("{}{}", known.empty() ? "" : ", ", pattern.name);
      continue;
    }
    int error = 0;
    size_t offset = 0;
    // Anchored: the alternatives cover every character, so a word always begins where the last one ended.
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.regex), PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error,
                                     &offset, nullptr);
    if (code == nullptr) {
      return Internal("the pattern of {} does not compile at {}: {}", name, offset, PcreMessage(error));
    }
    // Where no executable memory is to be had this fails, and pcre2_match interprets: four times slower, same
    // words.
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return std::make_unique<PcrePreTokenizer>(pattern, code);
  }
  return Unimplemented("tokenizer.ggml.pre is {}: only {} are known; choose a model with one of these",
                       Quoted(name), known);
}

}  // namespace palimpsest
