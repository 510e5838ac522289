#include "text/jinja/filters.h"

#include <charconv>
#include <cmath>
#include <map>

#include "proto/base/status.h"
#include "text/jinja/convert.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// The input as text, as most filters of strings take it.
#define INPUT_TEXT(text) PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(input, budget))
#define NO_ARGUMENTS(name) PALIMPSEST_RETURN_IF_ERROR(Bind(name, arguments, {}, 0).status())

Result Abs(const Value& input, const Arguments& arguments, Budget*) {
  NO_ARGUMENTS("abs");
  if (input.Is<double>()) return Value(std::fabs(input.real()));
  if (input.IsInteger() && input.integer() >= 0) return Value(input.integer());
  return Negate(input);
}

Result DefaultTo(const Value& input, const Arguments& arguments, Budget*) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("default", arguments, {"default_value", "boolean"}, 0));
  const bool replace = input.IsUndefined() || (FlagArgument(bound[1], false) && !IsTrue(input));
  if (!replace) return input;
  return bound[0] == nullptr ? Value("") : *bound[0];
}

Result Escape(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("escape");
  if (input.Is<Markup>()) return input;
  INPUT_TEXT(text);
  std::string out;
  for (const char c : text) {
    static constexpr std::string_view kFrom = "&<>'\"";
    static constexpr std::string_view kTo[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const size_t special = kFrom.find(c);
    special == std::string_view::npos ? out.append(1, c) : out.append(kTo[special]);
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(out.size())));
  return Value(Markup{std::make_shared<std::string>(std::move(out))});
}

Result Safe(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("safe");
  INPUT_TEXT(text);
  return Value(Markup{std::make_shared<std::string>(text)});
}

Result ToText(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("string");
  if (input.Is<Markup>()) return input;
  INPUT_TEXT(text);
  return Value(text);
}

Result Upper(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("upper");
  INPUT_TEXT(text);
  PALIMPSEST_ASSIGN_OR_RETURN(std::string mapped, ToUpper(text));
  return Value(std::move(mapped));
}

Result Lower(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("lower");
  INPUT_TEXT(text);
  PALIMPSEST_ASSIGN_OR_RETURN(std::string mapped, ToLower(text));
  return Value(std::move(mapped));
}

Result CapitalizeText(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("capitalize");
  INPUT_TEXT(text);
  return Capitalize(text, budget);
}

// Unlike the method of that name, words begin only after whitespace and -({[<.
Result Title(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("title");
  INPUT_TEXT(text);
  std::string out;
  bool word_begins = true;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const char32_t c = NextCodePoint(text, &i);
    const bool breaks = IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    const std::string_view character = std::string_view(text).substr(begin, i - begin);
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string mapped,
                                word_begins ? ToUpper(character) : ToLower(character));
    out += mapped;
    word_begins = breaks;
  }
  return Value(std::move(out));
}

Result Trim(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("trim", arguments, {"chars"}, 0));
  INPUT_TEXT(text);
  return Strip(text, bound[0], true, true, budget);
}

Result ReplaceText(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("replace", arguments, {"old", "new", "count"}, 2));
  INPUT_TEXT(text);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string from, ToString(*bound[0], budget));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string to, ToString(*bound[1], budget));
  const Value* count = bound[2] != nullptr && bound[2]->Is<None>() ? nullptr : bound[2];
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t times, IntegerArgument(count, "count", -1));
  return Replace(text, from, to, times, budget);
}

Result Indent(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("indent", arguments, {"width", "first", "blank"}, 0));
  if (!input.IsText()) return InvalidArgument("indent takes a string, not {}", TypeName(input));
  std::string indentation;
  if (bound[0] != nullptr && bound[0]->IsText()) {
    indentation = bound[0]->text();
  } else {
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[0], "width", 4));
    if (width > kTextBytesMax) return budget->Write(width);
    indentation.assign(std::max<int64_t>(width, 0), ' ');
  }
  const bool blank = FlagArgument(bound[2], false);
  std::string text = input.text();
  text.push_back('\n');  // so that a trailing newline makes a last, empty line
  Value out{std::string()};
  bool first = true;
  for (const std::string_view line : SplitLines(text)) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    if (!first) {
      PALIMPSEST_ASSIGN_OR_RETURN(out, AppendText(std::move(out), "\n", budget));
    }
    const bool indented = first ? FlagArgument(bound[1], false) : blank || !line.empty();
    PALIMPSEST_ASSIGN_OR_RETURN(out, AppendText(std::move(out), indented ? indentation : "", budget));
    PALIMPSEST_ASSIGN_OR_RETURN(out, AppendText(std::move(out), line, budget));
    first = false;
  }
  return out;
}

Result ToInteger(const Value& input, const Arguments& arguments, Budget*) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("int", arguments, {"default", "base"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t base, IntegerArgument(bound[1], "base", 10));
  if (base != 10) return InvalidArgument("int: the base {} is not supported", base);
  if (input.IsUndefined()) return UndefinedError(input);
  if (input.IsInteger()) return Value(input.integer());
  std::optional<double> number;
  if (input.Is<double>()) number = input.real();
  if (input.IsText()) {
    if (const auto integer = StringToInteger(input.text()); integer.has_value()) return Value(*integer);
    number = StringToFloat(input.text());
  }
  if (number.has_value() && std::isfinite(*number)) {
    if (std::fabs(*number) >= 9.2e18) return InvalidArgument("int: the number does not fit 64 bits");
    return Value(static_cast<int64_t>(*number));
  }
  return bound[0] == nullptr ? Value(int64_t{0}) : *bound[0];
}

Result ToFloat(const Value& input, const Arguments& arguments, Budget*) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("float", arguments, {"default"}, 0));
  if (input.IsUndefined()) return UndefinedError(input);
  if (input.IsNumber()) return Value(input.real());
  if (input.IsText()) {
    if (const auto number = StringToFloat(input.text()); number.has_value()) return Value(*number);
  }
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

Result Round(const Value& input, const Arguments& arguments, Budget*) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("round", arguments, {"precision", "method"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t precision, IntegerArgument(bound[0], "precision", 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string method, TextArgument(bound[1], "method", "common"));
  if (input.IsUndefined()) return UndefinedError(input);
  if (!input.IsNumber()) return InvalidArgument("round takes a number, not {}", TypeName(input));
  if (precision < 0 || precision > 15)
    return InvalidArgument("round: the precision {} is not in 0..15", precision);
  if (method == "ceil" || method == "floor") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = input.real() * scale;
    return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
  }
  if (method != "common") return InvalidArgument("round: the method is common, ceil or floor");
  if (input.IsInteger()) return Value(input.integer());
  if (!std::isfinite(input.real())) return input;
  char buffer[512];  // a double has at most 309 digits in front of the point
  // Correctly rounded decimal digits, as Python's round.
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, input.real(), std::chars_format::fixed,
                                 static_cast<int>(precision));
  double rounded = 0;
  std::from_chars(buffer, end.ptr, rounded);
  return Value(rounded);
}

Result Items(const Value& input, const Arguments& arguments, Budget* budget) {
  NO_ARGUMENTS("items");
  if (input.IsUndefined()) return MakeSequence(Sequence::Kind::kGenerator, {}, budget);
  if (!input.Is<DictPtr>()) return InvalidArgument("items takes a dict, not {}", TypeName(input));
  PALIMPSEST_ASSIGN_OR_RETURN(const Value items, CallMethod(input, "items", Arguments{}, budget));
  return MakeSequence(Sequence::Kind::kGenerator, items.As<SequencePtr>()->items, budget);
}

Result WriteJson(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(
      const auto bound, Bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonStyle style;
  style.ascii = FlagArgument(bound[0], false);
  style.sort_keys = FlagArgument(bound[3], false);
  if (bound[1] != nullptr && bound[1]->IsText()) {
    style.indent = bound[1]->text();
  } else if (bound[1] != nullptr && !bound[1]->Is<None>()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[1], "indent", 0));
    if (width > 64) return InvalidArgument("tojson: the indent {} is more than 64", width);
    style.indent = std::string(std::max<int64_t>(width, 0), ' ');
  }
  if (style.indent.has_value()) style.item_separator = std::string(1, ',');
  if (bound[2] != nullptr && !bound[2]->Is<None>()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr pair, Elements(*bound[2], budget));
    if (pair->items.size() != 2) return InvalidArgument("tojson: separators are two strings");
    PALIMPSEST_ASSIGN_OR_RETURN(style.item_separator, TextArgument(&pair->items[0], "separators", ""));
    PALIMPSEST_ASSIGN_OR_RETURN(style.key_separator, TextArgument(&pair->items[1], "separators", ""));
    if (style.item_separator.size() + style.key_separator.size() > 64) {
      return InvalidArgument("tojson: the separators are longer than 64 bytes");
    }
  }
  PALIMPSEST_ASSIGN_OR_RETURN(std::string json, ToJson(input, style, budget));
  return Value(std::move(json));
}

const std::map<std::string_view, Filter>& Filters() {
  static const auto* const kFilters = new std::map<std::string_view, Filter>{
      {"abs", Abs},          {"capitalize", CapitalizeText},
      {"d", DefaultTo},      {"default", DefaultTo},
      {"e", Escape},         {"escape", Escape},
      {"float", ToFloat},    {"indent", Indent},
      {"int", ToInteger},    {"items", Items},
      {"lower", Lower},      {"replace", ReplaceText},
      {"round", Round},      {"safe", Safe},
      {"string", ToText},    {"title", Title},
      {"tojson", WriteJson}, {"trim", Trim},
      {"upper", Upper},
  };
  return *kFilters;
}

// Python's Markup stays markup through most filters; here only those that leave it as it is take it.
bool TakesMarkup(std::string_view name) {
  return name == "safe" || name == "string" || name == "default" || name == "d" || name == "e" ||
         name == "escape";
}

}  // namespace

bool FilterExists(std::string_view name) {
  return Filters().contains(name) || FindListFilter(name) != nullptr;
}

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input, const Arguments& arguments,
                                  Budget* budget) {
  const auto found = Filters().find(name);
  const Filter filter = found == Filters().end() ? FindListFilter(name) : found->second;
  if (filter == nullptr) return InvalidArgument("the filter '{}' is not supported", name.substr(0, 64));
  if (input.Is<Markup>() && !TakesMarkup(name)) {
    return InvalidArgument("the filter '{}' of {} is not supported", name, TypeName(input));
  }
  return filter(input, arguments, budget);
}

}  // namespace palimpsest::jinja
