// Cuts a template into text and the tokens of its tags, with Jinja's whitespace control (trim_blocks,
// lstrip_blocks, '-' and '+' signs, one trailing newline dropped).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest::jinja {

struct Token {
  enum class Kind {
    kText,  // outside tags, whitespace already trimmed
    kPrint,
    kPrintEnd,
    kBlock,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind;
  int line;          // from 1
  std::string text;  // of kString: unescaped; of kOperator: as written
  int64_t integer = 0;
  double real = 0;

  bool Is(std::string_view op) const { return kind == Kind::kOperator && text == op; }
  bool IsName(std::string_view name) const { return kind == Kind::kName && text == name; }
};

// The tokens, the last of them kEnd. InvalidArgument names the construct and its line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace palimpsest::jinja
