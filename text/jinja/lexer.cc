#include "text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "proto/base/status.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// "\r\n" and "\r" become "\n"; one newline at the very end is dropped, as Jinja does by default.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      PALIMPSEST_RETURN_IF_ERROR(NextTag());
    }
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status NextTag();
  absl::Status Comment();
  absl::Status Raw();
  absl::Status InsideTag(bool block);
  absl::Status String();
  absl::Status Escape(std::string_view body, size_t* i, std::string* out);
  absl::Status Number();
  absl::Status Operator();

  bool At(size_t position, std::string_view expected) const {
    return source_.substr(std::min(position, source_.size())).starts_with(expected);
  }
  size_t SkipSpace(size_t position) const {
    return source_.size() - TrimLeft(source_.substr(std::min(position, source_.size()))).size();
  }
  // Length of the end of a tag at `position` ("-%}" with the space behind it, "+%}", "%}" with one newline);
  // 0: none.
  size_t TagEnd(size_t position, std::string_view close, bool trims_newline) const;
  bool AtRaw(size_t position, size_t* end) const;

  // Text in front of a tag, trimmed by the tag's sign, or back to the line's start if the tag is a block.
  void AddText(std::string_view text, char sign, bool strips_line);
  void Add(Token::Kind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }
  void MoveTo(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + position_, source_.begin() + position, '\n'));
    line_starting_ = position > 0 && source_[position - 1] == '\n';
    position_ = position;
  }

  const std::string_view source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was read last ended with a newline
  std::vector<Token> tokens_;
};

size_t Lexer::TagEnd(size_t position, std::string_view close, bool trims_newline) const {
  if (At(position, "-") && At(position + 1, close)) return SkipSpace(position + 1 + close.size()) - position;
  if (trims_newline && At(position, "+") && At(position + 1, close)) return 1 + close.size();
  if (!At(position, close)) return 0;
  return close.size() + (trims_newline && At(position + close.size(), "\n") ? 1 : 0);
}

bool Lexer::AtRaw(size_t position, size_t* end) const {
  size_t at = position + 2;
  if (At(at, "-") || At(at, "+")) ++at;
  at = SkipSpace(at);
  if (!At(at, "raw")) return false;
  at = SkipSpace(at + 3);
  if (At(at, "%}")) return *end = at + 2, true;
  if (At(at, "-%}")) return *end = SkipSpace(at + 3), true;
  return false;
}

void Lexer::AddText(std::string_view text, char sign, bool strips_line) {
  if (sign == '-') {
    text = TrimRight(text);
  } else if (sign != '+' && strips_line) {
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if ((line > 0 || line_starting_) && TrimLeft(text.substr(line)).empty()) text = text.substr(0, line);
  }
  if (!text.empty()) Add(Token::Kind::kText, std::string(text));
}

absl::Status Lexer::NextTag() {
  size_t open = position_;
  while (open < source_.size() && !At(open, "{{") && !At(open, "{%") && !At(open, "{#")) ++open;
  const std::string_view text = source_.substr(position_, open - position_);
  if (open == source_.size()) {
    AddText(text, '+', false);
    MoveTo(open);
    return absl::OkStatus();
  }
  const char kind = source_[open + 1];
  const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
  const bool has_sign = sign == '-' || sign == '+';
  AddText(text, sign, kind != '{');
  size_t raw_end = 0;
  if (kind == '%' && AtRaw(open, &raw_end)) {
    MoveTo(raw_end);
    return Raw();
  }
  MoveTo(open + (has_sign ? 3 : 2));
  if (kind == '#') return Comment();
  return InsideTag(kind == '%');
}

absl::Status Lexer::Comment() {
  for (size_t at = position_; at < source_.size(); ++at) {
    if (const size_t length = TagEnd(at, "#}", true); length > 0) {
      MoveTo(at + length);
      return absl::OkStatus();
    }
  }
  return InvalidArgument("chat template line {}: this comment has no end; close it with #}}", line_);
}

absl::Status Lexer::Raw() {
  for (size_t at = position_; at < source_.size(); ++at) {
    if (!At(at, "{%")) continue;
    const char sign = at + 2 < source_.size() ? source_[at + 2] : ' ';
    const size_t word = SkipSpace(at + (sign == '-' || sign == '+' ? 3 : 2));
    if (!At(word, "endraw")) continue;
    const size_t close = SkipSpace(word + 6);
    const size_t length = TagEnd(close, "%}", true);
    if (length == 0) continue;
    AddText(source_.substr(position_, at - position_), sign, true);
    MoveTo(close + length);
    return absl::OkStatus();
  }
  return InvalidArgument("chat template line {}: this raw block has no end; close it with {{% endraw %}}",
                         line_);
}

absl::Status Lexer::InsideTag(bool block) {
  const std::string_view close = block ? "%}" : "}}";
  Add(block ? Token::Kind::kBlock : Token::Kind::kPrint, "");
  std::string open_brackets;  // while any is open, "}}" closes dicts and not the tag
  const int first_line = line_;
  while (position_ < source_.size()) {
    if (const size_t length = TagEnd(position_, close, block); open_brackets.empty() && length > 0) {
      Add(block ? Token::Kind::kBlockEnd : Token::Kind::kPrintEnd, "");
      MoveTo(position_ + length);
      return absl::OkStatus();
    }
    const char c = source_[position_];
    if (const size_t next = SkipSpace(position_); next > position_) {
      MoveTo(next);
    } else if (IsDigit(c)) {
      PALIMPSEST_RETURN_IF_ERROR(Number());
    } else if (IsNameStart(c)) {
      size_t end = position_;
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      Add(Token::Kind::kName, std::string(source_.substr(position_, end - position_)));
      MoveTo(end);
    } else if (c == '\'' || c == '"') {
      PALIMPSEST_RETURN_IF_ERROR(String());
    } else {
      PALIMPSEST_RETURN_IF_ERROR(Operator());
      if (c == '(') open_brackets.push_back(')');
      if (c == '[') open_brackets.push_back(']');
      if (c == '{') open_brackets.push_back('}');
      if (c == ')' || c == ']' || c == '}') {
        if (open_brackets.empty() || open_brackets.back() != c) {
          return InvalidArgument("chat template line {}: '{}' closes nothing", line_, c);
        }
        open_brackets.pop_back();
      }
    }
  }
  return InvalidArgument("chat template line {}: this tag has no end; close it with {}", first_line, close);
}

absl::Status Lexer::String() {
  const char quote = source_[position_];
  size_t end = position_ + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
  if (end >= source_.size()) return InvalidArgument("chat template line {}: this string has no end", line_);
  const std::string_view body = source_.substr(position_ + 1, end - position_ - 1);
  std::string text;
  for (size_t i = 0; i < body.size();) {
    if (body[i] != '\\') {
      text.push_back(body[i++]);
    } else {
      PALIMPSEST_RETURN_IF_ERROR(Escape(body, &i, &text));
    }
  }
  Add(Token::Kind::kString, std::move(text));
  MoveTo(end + 1);
  return absl::OkStatus();
}

// One backslash sequence of a string, with Python's meaning; those that Python does not know stay as written.
absl::Status Lexer::Escape(std::string_view body, size_t* i, std::string* out) {
  static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
  const char kind = body[*i + 1];  // a backslash is never the last: String() skips what follows it
  *i += 2;
  if (const size_t simple = kFrom.find(kind); simple != std::string_view::npos) {
    out->push_back(kTo[simple]);
    return absl::OkStatus();
  }
  if (kind == '\n') return absl::OkStatus();
  size_t digits = 0;
  int base = 16;
  if (kind == 'x') digits = 2;
  if (kind == 'u') digits = 4;
  if (kind == 'U') digits = 8;
  if (kind >= '0' && kind <= '7') {
    base = 8, --*i;
    while (digits < 3 && *i + digits < body.size() && body[*i + digits] >= '0' && body[*i + digits] <= '7')
      ++digits;
  }
  if (kind == 'N') return InvalidArgument("chat template line {}: the escape \\N is not supported", line_);
  if (digits == 0) {
    out->push_back('\\');
    --*i;  // the character itself, which may be the first byte of several
    out->push_back(body[(*i)++]);
    return absl::OkStatus();
  }
  const std::string_view number = body.substr(*i, digits);
  uint32_t c = 0;
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), c, base);
  if (number.size() < digits || end != number.data() + digits || c > 0x10FFFF ||
      (c >= 0xD800 && c < 0xE000)) {
    return InvalidArgument("chat template line {}: the escape \\{} in this string is no character", line_,
                           kind);
  }
  AppendCodePoint(c, out);
  *i += digits;
  return absl::OkStatus();
}

absl::Status Lexer::Number() {
  std::string digits;
  size_t end = position_;
  auto read_digits = [&] {
    while (end < source_.size() &&
           (IsDigit(source_[end]) ||
            (source_[end] == '_' && end + 1 < source_.size() && IsDigit(source_[end + 1])))) {
      if (source_[end] != '_') digits.push_back(source_[end]);
      ++end;
    }
  };
  read_digits();
  auto digit_at = [&](size_t at) { return at < source_.size() && IsDigit(source_[at]); };
  const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';  // "a.0.1" has no float in it
  bool real = false;
  if (!after_dot && At(end, ".") && digit_at(end + 1)) {
    digits.push_back('.'), ++end, real = true;
    read_digits();
  }
  if (!after_dot && (At(end, "e") || At(end, "E"))) {
    const bool sign = At(end + 1, "+") || At(end + 1, "-");
    if (digit_at(end + (sign ? 2 : 1))) {
      digits.push_back('e');
      if (sign) digits.push_back(source_[end + 1]);
      end += sign ? 2 : 1, real = true;
      read_digits();
    }
  }
  Token token{real ? Token::Kind::kFloat : Token::Kind::kInteger, line_, digits};
  const char* last = digits.data() + digits.size();
  const auto result = real ? std::from_chars(digits.data(), last, token.real)
                           : std::from_chars(digits.data(), last, token.integer);
  const bool leading_zero = !real && digits.size() > 1 && digits[0] == '0' && token.integer != 0;
  if (result.ec != std::errc() || leading_zero || (end < source_.size() && IsNameStart(source_[end]))) {
    return InvalidArgument("chat template line {}: the number beginning with {} is not supported", line_,
                           digits.substr(0, 32));
  }
  tokens_.push_back(std::move(token));
  MoveTo(end);
  return absl::OkStatus();
}

absl::Status Lexer::Operator() {
  static constexpr std::string_view kLong[] = {"//", "**", "==", "!=", ">=", "<="};
  static constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
  for (std::string_view op : kLong) {
    if (!At(position_, op)) continue;
    Add(Token::Kind::kOperator, std::string(op));
    MoveTo(position_ + 2);
    return absl::OkStatus();
  }
  const char c = source_[position_];
  if (kShort.find(c) == std::string_view::npos) {
    size_t next = position_;
    return InvalidArgument("chat template line {}: unexpected character U+{:04X} in a tag", line_,
                           static_cast<uint32_t>(NextCodePoint(source_, &next)));
  }
  Add(Token::Kind::kOperator, std::string(1, c));
  MoveTo(position_ + 1);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  const std::string normalized = NormalizeNewlines(source);
  return Lexer(normalized).Run();
}

}  // namespace palimpsest::jinja
