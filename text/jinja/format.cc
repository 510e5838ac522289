#include "text/jinja/format.h"

#include <algorithm>

#include "proto/base/status.h"
#include "text/jinja/convert.h"

namespace palimpsest::jinja {
namespace {

absl::Status Append(const std::string& text, std::string* out, Budget* budget) {
  const auto added = static_cast<int64_t>(text.size());
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(out->size()) + added, added));
  *out += text;
  return absl::OkStatus();
}

// The argument that "{field}" names; *next counts the "{}", or is kNumbered once there were "{0}": Python
// allows no mix.
constexpr size_t kNumbered = SIZE_MAX;
absl::StatusOr<const Value*> Field(std::string_view field, const Arguments& arguments, size_t* next) {
  size_t index = 0;
  const auto number = StringToInteger(field);
  if (field.empty() ? *next == kNumbered : number.has_value() && *next != 0 && *next != kNumbered) {
    return InvalidArgument("format: {{}} and {{0}} cannot be mixed");
  }
  if (field.empty()) {
    index = (*next)++;
  } else if (number.has_value() && *number >= 0) {
    index = static_cast<size_t>(*number);
    *next = kNumbered;
  } else {
    for (const auto& [name, value] : arguments.named) {
      if (name == field) return &value;
    }
    return InvalidArgument("format: only {{}}, {{0}} and {{name}} of an argument are supported");
  }
  if (index < arguments.positional.size()) return &arguments.positional[index];
  return InvalidArgument("format: there is no argument {}", index);
}

}  // namespace

absl::StatusOr<Value> FormatPercent(const std::string& format, const Value& values, Budget* budget) {
  const bool tuple = values.IsSequence(Sequence::Kind::kTuple);
  const std::vector<Value> arguments = tuple ? values.As<SequencePtr>()->items : std::vector<Value>{values};
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(format.size())));
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    const char kind = ++i < format.size() ? format[i] : ' ';
    if (kind == '%') {
      out.push_back('%');
      continue;
    }
    if (kind != 's' && kind != 'd' && kind != 'i')
      return InvalidArgument("%: only %s, %d, %i and %% are supported");
    if (used == arguments.size()) return InvalidArgument("%: there are fewer values than places for them");
    const Value& argument = arguments[used++];
    if (kind == 's') {
      PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(argument, budget));
      PALIMPSEST_RETURN_IF_ERROR(Append(text, &out, budget));
    } else {
      if (!argument.IsInteger()) return InvalidArgument("%d takes an integer, not {}", TypeName(argument));
      PALIMPSEST_RETURN_IF_ERROR(Append(std::to_string(argument.integer()), &out, budget));
    }
  }
  // Python lets dicts and lists, which could be looked up by name, go unused.
  const bool may_be_unused = values.Is<DictPtr>() || values.Is<SequencePtr>() || values.IsUndefined();
  if (used < arguments.size() && (tuple || !may_be_unused)) {
    return InvalidArgument("%: there are more values than places for them");
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> FormatBraces(const std::string& format, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(format.size())));
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    const bool doubled = i + 1 < format.size() && format[i + 1] == c;
    if (c != '{' && c != '}') {
      out.push_back(c);
    } else if (doubled) {
      out.push_back(c);
      ++i;
    } else {
      const size_t end = c == '{' ? format.find('}', i) : std::string::npos;
      if (end == std::string::npos) return InvalidArgument("format: a single {} in the string", c);
      PALIMPSEST_ASSIGN_OR_RETURN(
          const Value* value, Field(std::string_view(format).substr(i + 1, end - i - 1), arguments, &next));
      PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ToString(*value, budget));
      PALIMPSEST_RETURN_IF_ERROR(Append(text, &out, budget));
      i = end;
    }
  }
  return Value(std::move(out));
}

}  // namespace palimpsest::jinja
