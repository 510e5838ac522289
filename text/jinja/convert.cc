#include "text/jinja/convert.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "proto/base/status.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

// Characters that repr() escapes. Unassigned code points, which Python escapes too, are left as they are.
bool IsPrintable(char32_t c) {
  if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return false;
  if (c > 0x20 && IsSpace(c)) return false;
  if ((c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F))
    return false;
  return !((c >= 0xE000 && c <= 0xF8FF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) ||
           (c & 0xFFFE) == 0xFFFE || c >= 0xE0000);
}

void AppendRepr(std::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out->push_back(quote);
  for (size_t i = 0; i < text.size();) {
    const char32_t c = NextCodePoint(text, &i);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out->push_back('\\');
      out->push_back(static_cast<char>(c));
    } else if (c == '\n' || c == '\r' || c == '\t') {
      *out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (IsPrintable(c)) {
      AppendCodePoint(c, out);
    } else {
      const auto code = static_cast<uint32_t>(c);
      *out += code < 0x100     ? fmt::format("\\x{:02x}", code)
              : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                               : fmt::format("\\U{:08x}", code);
    }
  }
  out->push_back(quote);
}

class Printer {
 public:
  explicit Printer(Budget* budget) : budget_(budget) {}

  absl::Status Repr(const Value& value) {
    if (value.IsText()) {
      PALIMPSEST_RETURN_IF_ERROR(budget_->Write(out_.size() + value.text().size(), 2 * value.text().size()));
      AppendRepr(value.text(), &out_);
      return absl::OkStatus();
    }
    PALIMPSEST_RETURN_IF_ERROR(budget_->Write(out_.size(), 32));
    if (value.Is<DictPtr>()) return ReprDict(*value.As<DictPtr>());
    if (value.Is<SequencePtr>()) return ReprSequence(*value.As<SequencePtr>());
    return Plain(value);
  }

  // str() of all but strings and containers
  absl::Status Plain(const Value& value) {
    if (value.IsUndefined()) {
      out_ += nested_ ? "Undefined" : "";
    } else if (value.Is<None>()) {
      out_ += "None";
    } else if (value.Is<bool>()) {
      out_ += value.As<bool>() ? "True" : "False";
    } else if (value.Is<int64_t>()) {
      out_ += std::to_string(value.As<int64_t>());
    } else if (value.Is<double>()) {
      out_ += FloatToString(value.As<double>());
    } else {
      return InvalidArgument("printing {} is not supported", TypeName(value));
    }
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  absl::Status ReprSequence(const Sequence& sequence) {
    nested_ = true;
    static constexpr std::string_view kOpen[] = {"[",           "(", "", "dict_keys([", "dict_values([",
                                                 "dict_items(["};
    static constexpr std::string_view kClose[] = {"]", ")", "", "])", "])", "])"};
    if (sequence.kind == Sequence::Kind::kRange || sequence.kind == Sequence::Kind::kGenerator) {
      return InvalidArgument("printing a range or generator is not supported; make it a list first");
    }
    const int kind = static_cast<int>(sequence.kind);
    out_ += kOpen[kind];
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) out_ += ", ";
      PALIMPSEST_RETURN_IF_ERROR(Repr(sequence.items[i]));
    }
    if (sequence.kind == Sequence::Kind::kTuple && sequence.items.size() == 1) out_ += ",";
    out_ += kClose[kind];
    return absl::OkStatus();
  }

  absl::Status ReprDict(const Dict& dict) {
    nested_ = true;
    out_ += "{";
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) out_ += ", ";
      PALIMPSEST_RETURN_IF_ERROR(Repr(dict.entries[i].first));
      out_ += ": ";
      PALIMPSEST_RETURN_IF_ERROR(Repr(dict.entries[i].second));
    }
    out_ += "}";
    return absl::OkStatus();
  }

  Budget* budget_;
  bool nested_ = false;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget* budget) : style_(style), budget_(budget) {}

  absl::Status Write(const Value& value, int level) {
    const auto text_bytes = static_cast<int64_t>(value.IsText() ? value.text().size() : 0);
    PALIMPSEST_RETURN_IF_ERROR(budget_->Write(out_.size() + text_bytes, 2 * text_bytes + 32));
    if (value.Is<None>()) {
      out_ += "null";
    } else if (value.Is<bool>()) {
      out_ += value.As<bool>() ? "true" : "false";
    } else if (value.Is<int64_t>()) {
      out_ += std::to_string(value.As<int64_t>());
    } else if (value.Is<double>()) {
      out_ += Number(value.As<double>());
    } else if (value.IsText()) {
      WriteText(value.text());
    } else if (value.Is<DictPtr>()) {
      return WriteDict(*value.As<DictPtr>(), level);
    } else if (value.IsSequence(Sequence::Kind::kList) || value.IsSequence(Sequence::Kind::kTuple)) {
      return WriteList(value.As<SequencePtr>()->items, level);
    } else {
      return InvalidArgument("tojson cannot write {}", TypeName(value));
    }
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  static std::string Number(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return FloatToString(number);
  }

  void WriteText(std::string_view text) {
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const char32_t c = NextCodePoint(text, &i);
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
      const size_t simple = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
      if (simple != std::string_view::npos) {
        out_ += '\\';
        out_ += kTo[simple];
      } else if (c < 0x20 || (style_.ascii && c >= 0x7F && c < 0x10000)) {
        out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      } else if (style_.ascii && c >= 0x10000) {
        const uint32_t rest = c - 0x10000;
        out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
      } else {
        AppendCodePoint(c, &out_);
      }
    }
    out_ += '"';
  }

  absl::Status NewLine(int level) {
    if (!style_.indent.has_value()) return absl::OkStatus();
    const auto added = static_cast<int64_t>(1 + level * style_.indent->size());
    PALIMPSEST_RETURN_IF_ERROR(budget_->Write(out_.size() + added, added));
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
    return absl::OkStatus();
  }

  absl::Status WriteList(const std::vector<Value>& items, int level) {
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      PALIMPSEST_RETURN_IF_ERROR(NewLine(level + 1));
      PALIMPSEST_RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    if (!items.empty()) PALIMPSEST_RETURN_IF_ERROR(NewLine(level));
    out_ += ']';
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict, int level) {
    std::vector<const std::pair<Value, Value>*> entries;
    entries.reserve(dict.entries.size());
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      for (const auto* entry : entries) {
        if (!entry->first.IsText()) return InvalidArgument("tojson sorts only keys that are strings");
      }
      PALIMPSEST_RETURN_IF_ERROR(budget_->Steps(static_cast<int64_t>(entries.size())));
      std::sort(entries.begin(), entries.end(),
                [](const auto* a, const auto* b) { return a->first.text() < b->first.text(); });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      PALIMPSEST_RETURN_IF_ERROR(NewLine(level + 1));
      PALIMPSEST_RETURN_IF_ERROR(WriteKey(entries[i]->first, level));
      out_ += style_.key_separator;
      PALIMPSEST_RETURN_IF_ERROR(Write(entries[i]->second, level + 1));
    }
    if (!entries.empty()) PALIMPSEST_RETURN_IF_ERROR(NewLine(level));
    out_ += '}';
    return absl::OkStatus();
  }

  absl::Status WriteKey(const Value& key, int level) {
    if (key.IsText()) return Write(key, level);
    if (!key.Is<None>() && !key.IsNumber())
      return InvalidArgument("tojson cannot write {} as a key", TypeName(key));
    out_ += '"';
    PALIMPSEST_RETURN_IF_ERROR(Write(key, level));
    out_ += '"';
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  Budget* budget_;
  std::string out_;
};

std::string_view Trim(std::string_view text) { return TrimLeft(TrimRight(text)); }

// Digits as Python reads them: one '_' may stand between two of them.
std::optional<std::string> WithoutUnderscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
      continue;
    }
    auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  return out;
}

}  // namespace

absl::StatusOr<std::string> ToString(const Value& value, Budget* budget) {
  if (value.IsText() || value.Is<Markup>()) {
    const std::string& text = value.IsText() ? value.text() : *value.As<Markup>().text;
    PALIMPSEST_RETURN_IF_ERROR(budget->Write(text.size()));
    return text;
  }
  Printer printer(budget);
  PALIMPSEST_RETURN_IF_ERROR(printer.Repr(value));
  return printer.Take();
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  JsonWriter writer(style, budget);
  PALIMPSEST_RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

std::string FloatToString(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  auto scientific = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  const int exponent = std::stoi(text.substr(text.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return text;  // both write at least two digits of exponent
  auto fixed = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::optional<double> StringToFloat(std::string_view text) {
  std::optional<std::string> digits = WithoutUnderscores(Trim(text));
  if (!digits.has_value()) return std::nullopt;
  std::string_view rest = *digits;
  if (rest.starts_with('+') && !rest.starts_with("+-")) rest.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  const bool nan_payload = rest.find('(') != std::string_view::npos;
  if (error != std::errc() || end != rest.data() + rest.size() || nan_payload) return std::nullopt;
  return number;
}

std::optional<int64_t> StringToInteger(std::string_view text) {
  std::optional<std::string> digits = WithoutUnderscores(Trim(text));
  if (!digits.has_value()) return std::nullopt;
  std::string_view rest = *digits;
  if (rest.starts_with('+') && !rest.starts_with("+-")) rest.remove_prefix(1);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc() || end != rest.data() + rest.size()) return std::nullopt;
  return number;
}

}  // namespace palimpsest::jinja
