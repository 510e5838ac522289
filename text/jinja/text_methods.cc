// The methods of strings, and what filters share with them.
#include <algorithm>

#include "proto/base/status.h"
#include "text/jinja/convert.h"
#include "text/jinja/format.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// Pieces of `text` between whitespace, at most `limit` cuts (-1: all); from the right if `backwards`.
std::vector<std::string> SplitAtSpace(std::string_view text, int64_t limit, bool backwards) {
  std::vector<std::string> pieces;
  text = backwards ? TrimRight(text) : TrimLeft(text);
  while (!text.empty()) {
    if (limit == 0) {
      pieces.emplace_back(text);
      break;
    }
    size_t cut = 0;
    if (backwards) {
      cut = text.size();
      while (cut > 0) {
        size_t start = cut - 1;
        while (start > 0 && (text[start] & 0xC0) == 0x80) --start;
        size_t i = start;
        if (IsSpace(NextCodePoint(text, &i))) break;
        cut = start;
      }
      pieces.emplace_back(text.substr(cut));
      text = TrimRight(text.substr(0, cut));
    } else {
      for (size_t i = 0; i < text.size(); cut = i) {
        if (IsSpace(NextCodePoint(text, &i))) break;
      }
      pieces.emplace_back(text.substr(0, cut));
      text = TrimLeft(text.substr(cut));
    }
    if (limit > 0) --limit;
  }
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string> SplitAt(std::string_view text, std::string_view separator, int64_t limit,
                                 bool backwards) {
  std::vector<std::string> pieces;
  while (limit != 0) {
    const size_t at = backwards ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    pieces.emplace_back(backwards ? text.substr(at + separator.size()) : text.substr(0, at));
    text = backwards ? text.substr(0, at) : text.substr(at + separator.size());
    if (limit > 0) --limit;
  }
  pieces.emplace_back(text);
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Result ListOfTexts(std::vector<std::string> pieces, Sequence::Kind kind, Budget* budget) {
  std::vector<Value> items;
  for (std::string& piece : pieces) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Elements(2));
    items.emplace_back(std::move(piece));
  }
  return MakeSequence(kind, std::move(items), budget);
}

Result Split(const std::string& text, const Arguments& arguments, bool backwards, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("split", arguments, {"sep", "maxsplit"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t limit, IntegerArgument(bound[1], "maxsplit", -1));
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size())));
  if (bound[0] == nullptr || bound[0]->Is<None>()) {
    return ListOfTexts(SplitAtSpace(text, limit, backwards), Sequence::Kind::kList, budget);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string separator, TextArgument(bound[0], "the separator", ""));
  if (separator.empty()) return InvalidArgument("split: the separator is empty");
  PALIMPSEST_RETURN_IF_ERROR(budget->Search(text.size(), separator.size()));
  return ListOfTexts(SplitAt(text, separator, limit, backwards), Sequence::Kind::kList, budget);
}

Result Partition(const std::string& text, const Arguments& arguments, bool backwards, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("partition", arguments, {"sep"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string separator, TextArgument(bound[0], "the separator", ""));
  if (separator.empty()) return InvalidArgument("partition: the separator is empty");
  PALIMPSEST_RETURN_IF_ERROR(budget->Search(text.size(), separator.size()));
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size())));
  std::vector<std::string> pieces = SplitAt(text, separator, 1, backwards);
  if (pieces.size() == 2) {
    pieces.insert(pieces.begin() + 1, separator);
  } else {
    pieces = backwards ? std::vector<std::string>{"", "", text} : std::vector<std::string>{text, "", ""};
  }
  return ListOfTexts(std::move(pieces), Sequence::Kind::kTuple, budget);
}

// startswith and endswith: one string, or a tuple of which any fits.
Result Affix(const std::string& text, const Arguments& arguments, bool at_end) {
  const std::string_view name = at_end ? "endswith" : "startswith";
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"affix"}, 1));
  std::vector<Value> options{*bound[0]};
  if (bound[0]->IsSequence(Sequence::Kind::kTuple)) options = bound[0]->As<SequencePtr>()->items;
  for (const Value& option : options) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string affix, TextArgument(&option, name, ""));
    if (at_end ? text.ends_with(affix) : text.starts_with(affix)) return Value(true);
  }
  return Value(false);
}

Result RemoveAffix(const std::string& text, const Arguments& arguments, bool at_end, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound,
                              Bind(at_end ? "removesuffix" : "removeprefix", arguments, {"affix"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string affix, TextArgument(bound[0], "the affix", ""));
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size())));
  if (at_end && text.ends_with(affix)) return Value(text.substr(0, text.size() - affix.size()));
  if (!at_end && text.starts_with(affix)) return Value(text.substr(affix.size()));
  return Value(text);
}

Result Find(const std::string& text, std::string_view name, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"sub"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string part, TextArgument(bound[0], name, ""));
  PALIMPSEST_RETURN_IF_ERROR(budget->Search(text.size(), part.size()));
  const size_t at = name.starts_with('r') ? text.rfind(part) : text.find(part);
  if (at != std::string::npos) return Value(CountCodePoints(std::string_view(text).substr(0, at)));
  if (name.ends_with("find")) return Value(int64_t{-1});
  return InvalidArgument("{}: the text is not there", name);
}

Result CountText(const std::string& text, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("count", arguments, {"sub"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string part, TextArgument(bound[0], "count", ""));
  PALIMPSEST_RETURN_IF_ERROR(budget->Search(text.size(), part.size()));
  if (part.empty()) return Value(CountCodePoints(text) + 1);
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return Value(count);
}

// Every word's first cased character in upper case, the others in lower case.
Result Title(const std::string& text) {
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const char32_t c = NextCodePoint(text, &i);
    const std::string_view character = std::string_view(text).substr(begin, i - begin);
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string mapped, inside ? ToLower(character) : ToUpper(character));
    out += mapped;
    inside = IsUpper(c) || IsLower(c);
  }
  return Value(std::move(out));
}

// isdigit, isalpha, ...: of ASCII text only, for the others need tables that no template has asked for.
Result Classify(const std::string& text, std::string_view name) {
  bool cased = false;
  bool all = true;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = NextCodePoint(text, &i);
    if (c >= 0x80 && name != "isspace" && name != "isascii") {
      return InvalidArgument("{} of U+{:04X} is not supported", name, static_cast<uint32_t>(c));
    }
    const bool digit = c >= '0' && c <= '9';
    const bool alpha = IsUpper(c) || IsLower(c);
    cased = cased || alpha;
    if (name == "isdigit" || name == "isdecimal" || name == "isnumeric") all = all && digit;
    if (name == "isalpha") all = all && alpha;
    if (name == "isalnum") all = all && (alpha || digit);
    if (name == "isspace") all = all && IsSpace(c);
    if (name == "isascii") all = all && c < 0x80;
    if (name == "isupper") all = all && !IsLower(c);
    if (name == "islower") all = all && !IsUpper(c);
  }
  if (name == "isascii") return Value(all);
  return Value(all && !text.empty() && (cased || (name != "isupper" && name != "islower")));
}

}  // namespace

absl::StatusOr<Value> CallTextMethod(const Value& object, std::string_view name, const Arguments& arguments,
                                     Budget* budget) {
  const std::string& text = object.text();
  PALIMPSEST_RETURN_IF_ERROR(budget->Read(static_cast<int64_t>(text.size())));
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"chars"}, 0));
    return Strip(text, bound[0], name != "rstrip", name != "lstrip", budget);
  }
  if (name == "split" || name == "rsplit") return Split(text, arguments, name == "rsplit", budget);
  if (name == "partition" || name == "rpartition")
    return Partition(text, arguments, name == "rpartition", budget);
  if (name == "startswith" || name == "endswith") return Affix(text, arguments, name == "endswith");
  if (name == "removeprefix") return RemoveAffix(text, arguments, false, budget);
  if (name == "removesuffix") return RemoveAffix(text, arguments, true, budget);
  if (name == "find" || name == "rfind" || name == "index" || name == "rindex")
    return Find(text, name, arguments, budget);
  if (name == "count") return CountText(text, arguments, budget);
  if (name == "format") return FormatBraces(text, arguments, budget);
  if (name == "replace") {
    PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"old", "new", "count"}, 2));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string from, TextArgument(bound[0], "old", ""));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string to, TextArgument(bound[1], "new", ""));
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(bound[2], "count", -1));
    return Replace(text, from, to, count, budget);
  }
  if (name == "join") {
    PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"iterable"}, 1));
    PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr items, Elements(*bound[0], budget));
    return Join(text, items->items, true, budget);
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size())));
  PALIMPSEST_RETURN_IF_ERROR(Bind(name, arguments, {}, 0).status());  // none of the others takes any here
  if (name.starts_with("is") && name != "isidentifier" && name != "isprintable" && name != "istitle") {
    return Classify(text, name);
  }
  if (name == "capitalize") return Capitalize(text, budget);
  if (name == "title") return Title(text);
  if (name == "splitlines") {
    const std::vector<std::string_view> lines = SplitLines(text);
    return ListOfTexts({lines.begin(), lines.end()}, Sequence::Kind::kList, budget);
  }
  if (name == "upper" || name == "lower") {
    PALIMPSEST_ASSIGN_OR_RETURN(std::string mapped, name == "upper" ? ToUpper(text) : ToLower(text));
    return Value(std::move(mapped));
  }
  return InvalidArgument("the method '{}' of strings is not supported", name);
}

absl::StatusOr<Value> Strip(const std::string& text, const Value* characters, bool left, bool right,
                            Budget* budget) {
  std::string_view rest = text;
  if (characters == nullptr || characters->Is<None>()) {
    if (left) rest = TrimLeft(rest);
    if (right) rest = TrimRight(rest);
  } else {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string set,
                                TextArgument(characters, "the characters to strip", ""));
    PALIMPSEST_RETURN_IF_ERROR(
        budget->Read(static_cast<int64_t>(text.size() * std::max<size_t>(set.size(), 1))));
    auto listed = [&set](std::string_view character) { return set.find(character) != std::string::npos; };
    while (left && !rest.empty()) {
      size_t end = 0;
      NextCodePoint(rest, &end);
      if (!listed(rest.substr(0, end))) break;
      rest.remove_prefix(end);
    }
    while (right && !rest.empty()) {
      size_t start = rest.size() - 1;
      while (start > 0 && (rest[start] & 0xC0) == 0x80) --start;
      if (!listed(rest.substr(start))) break;
      rest = rest.substr(0, start);
    }
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(rest.size())));
  return Value(rest);
}

absl::StatusOr<Value> Replace(const std::string& text, std::string_view from, std::string_view to,
                              int64_t count, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Search(text.size(), from.size()));
  std::string out;
  size_t position = 0;
  auto copy = [&](std::string_view part) {
    const auto added = static_cast<int64_t>(part.size());
    absl::Status status = budget->Write(static_cast<int64_t>(out.size()) + added, added);
    if (status.ok()) out += part;
    return status;
  };
  for (; count != 0; --count) {
    size_t at = text.find(from, position);
    if (at == std::string::npos) break;
    if (from.empty()) {  // between all characters, and at both ends
      PALIMPSEST_RETURN_IF_ERROR(copy(to));
      if (position == text.size()) return Value(std::move(out));
      at = position;
      NextCodePoint(text, &position);
      PALIMPSEST_RETURN_IF_ERROR(copy(std::string_view(text).substr(at, position - at)));
      continue;
    }
    PALIMPSEST_RETURN_IF_ERROR(copy(std::string_view(text).substr(position, at - position)));
    PALIMPSEST_RETURN_IF_ERROR(copy(to));
    position = at + from.size();
  }
  PALIMPSEST_RETURN_IF_ERROR(copy(std::string_view(text).substr(position)));
  return Value(std::move(out));
}

absl::StatusOr<Value> Join(const std::string& separator, const std::vector<Value>& items, bool text_only,
                           Budget* budget) {
  Value joined{std::string()};
  for (size_t i = 0; i < items.size(); ++i) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    if (i > 0) {
      PALIMPSEST_ASSIGN_OR_RETURN(joined, AppendText(std::move(joined), separator, budget));
    }
    if (items[i].Is<Markup>()) return InvalidArgument("join of {} is not supported", TypeName(items[i]));
    if (text_only && !items[i].IsText())
      return InvalidArgument("join takes strings, not {}", TypeName(items[i]));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(items[i], budget));
    PALIMPSEST_ASSIGN_OR_RETURN(joined, AppendText(std::move(joined), text, budget));
  }
  return joined;
}

absl::StatusOr<Value> Capitalize(const std::string& text, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size())));
  size_t first = 0;
  if (!text.empty()) NextCodePoint(text, &first);
  PALIMPSEST_ASSIGN_OR_RETURN(std::string head, ToUpper(std::string_view(text).substr(0, first)));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string rest, ToLower(std::string_view(text).substr(first)));
  return Value(head + rest);
}

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    const char32_t c = NextCodePoint(text, &i);
    const bool breaks =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, at - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

}  // namespace palimpsest::jinja
