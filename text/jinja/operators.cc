#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "proto/base/status.h"
#include "text/jinja/convert.h"
#include "text/jinja/format.h"
#include "text/jinja/methods.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

absl::Status Overflow() { return InvalidArgument("the result of this arithmetic does not fit 64 bits"); }

absl::StatusOr<int64_t> Power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return result;
}

absl::StatusOr<Value> IntegerArithmetic(int64_t a, std::string_view op, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    PALIMPSEST_ASSIGN_OR_RETURN(result, Power(a, b));
  } else {
    if (b == 0) return InvalidArgument("division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {  // the only quotient that can overflow
      if (op == "%") return Value(int64_t{0});
      overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      // Python rounds towards minus infinity, so the remainder has the divisor's sign.
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      result = op == "//" ? a / b - (adjust ? 1 : 0) : remainder + (adjust ? b : 0);
    }
  }
  if (overflow) return Overflow();
  return Value(result);
}

absl::StatusOr<Value> FloatArithmetic(double a, std::string_view op, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    const double result = std::pow(a, b);
    if (std::isnan(result) && !std::isnan(a) && !std::isnan(b))
      return InvalidArgument("this power is not a real number");
    return Value(result);
  }
  if (b == 0) return InvalidArgument("division by zero");
  if (op == "/") return Value(a / b);
  // As Python's divmod: the remainder has the divisor's sign, even when it is zero.
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder == 0) {
    remainder = std::copysign(0.0, b);
  } else if ((remainder < 0) != (b < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (op == "%") return Value(remainder);
  if (quotient == 0) return Value(std::copysign(0.0, a / b));
  const double whole = std::floor(quotient);
  return Value(quotient - whole > 0.5 ? whole + 1 : whole);
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count, Budget* budget) {
  count = std::max<int64_t>(count, 0);
  if (value.IsText()) {
    const auto bytes = static_cast<int64_t>(value.text().size());
    if (bytes > 0 && count > kTextBytesMax / bytes) return budget->Write(kTextBytesMax + 1);
    PALIMPSEST_RETURN_IF_ERROR(budget->Write(bytes * count));
    std::string text;
    text.reserve(bytes * count);
    for (int64_t i = 0; bytes > 0 && i < count; ++i) text += value.text();
    return Value(std::move(text));
  }
  const Sequence& sequence = *value.As<SequencePtr>();
  const auto length = static_cast<int64_t>(sequence.items.size());
  if (length > 0 && count > kStepsMax / length) return budget->Steps(kStepsMax + 1);
  PALIMPSEST_RETURN_IF_ERROR(budget->Elements(length * count));
  std::vector<Value> items;
  for (int64_t i = 0; length > 0 && i < count; ++i) {
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return MakeSequence(sequence.kind, std::move(items), budget);
}

bool IsListOrTuple(const Value& value) {
  return value.IsSequence(Sequence::Kind::kList) || value.IsSequence(Sequence::Kind::kTuple);
}

// A bound of a slice, within 0..length (or -1..length-1 when stepping back), as Python's slice.indices.
int64_t ClampBound(int64_t bound, int64_t length, bool backwards) {
  if (bound < 0) bound = std::max<int64_t>(bound + length, backwards ? -1 : 0);
  return std::min(bound, backwards ? length - 1 : length);
}

// std::nullopt if left out or None.
absl::StatusOr<std::optional<int64_t>> Bound(const Value* value) {
  if (value == nullptr || value->Is<None>()) return std::optional<int64_t>();
  if (value->IsUndefined()) return UndefinedError(*value);
  if (!value->IsInteger())
    return InvalidArgument("the bounds of a slice are integers, not {}", TypeName(*value));
  return std::optional<int64_t>(value->integer());
}

absl::StatusOr<Value> SliceText(const std::string& text, int64_t start, int64_t stop, int64_t step,
                                Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Read(static_cast<int64_t>(text.size())));
  if (step == 1) {
    const size_t begin = OffsetOfCodePoint(text, start);
    const size_t bytes =
        OffsetOfCodePoint(std::string_view(text).substr(begin), std::max<int64_t>(stop - start, 0));
    PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(bytes)));
    return Value(text.substr(begin, bytes));
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(text.size()) * 4));
  std::u32string characters;
  for (size_t i = 0; i < text.size();) characters.push_back(NextCodePoint(text, &i));
  std::string out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) AppendCodePoint(characters[i], &out);
  return Value(std::move(out));
}

absl::StatusOr<Value> LoopAttribute(const Loop& loop, std::string_view name) {
  const auto length = static_cast<int64_t>(loop.items->items.size());
  if (name == "index") return Value(loop.index + 1);
  if (name == "index0") return Value(loop.index);
  if (name == "revindex") return Value(length - loop.index);
  if (name == "revindex0") return Value(length - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index == length - 1);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(int64_t{1});  // counts only recursive loops, which are not supported
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem" && loop.index > 0) return loop.items->items[loop.index - 1];
  if (name == "nextitem" && loop.index + 1 < length) return loop.items->items[loop.index + 1];
  if (name == "changed") return InvalidArgument("loop.changed is not supported");
  return Value(Undefined{name});
}

}  // namespace

absl::StatusOr<Value> AppendText(Value left, std::string_view right, Budget* budget) {
  const auto added = static_cast<int64_t>(right.size());
  const auto total = static_cast<int64_t>(left.text().size()) + added;
  Text& text = *left.Mutable<Text>();
  if (text.use_count() == 1) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Write(total, added));
    text->append(right);
    return left;
  }
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(total));
  std::string joined;
  joined.reserve(total);
  joined.append(*text).append(right);
  return Value(std::move(joined));
}

absl::StatusOr<Value> Arithmetic(Value left, std::string_view op, const Value& right, Budget* budget) {
  if (left.IsText() && op == "%") return FormatPercent(left.text(), right, budget);
  if (left.IsUndefined()) return UndefinedError(left);
  if (right.IsUndefined()) return UndefinedError(right);
  if (left.IsInteger() && right.IsInteger()) return IntegerArithmetic(left.integer(), op, right.integer());
  if (left.IsNumber() && right.IsNumber()) return FloatArithmetic(left.real(), op, right.real());
  if (op == "+" && left.IsText() && right.IsText()) return AppendText(std::move(left), right.text(), budget);
  if (op == "+" && IsListOrTuple(left) && IsListOrTuple(right) &&
      left.As<SequencePtr>()->kind == right.As<SequencePtr>()->kind) {
    std::vector<Value> items = left.As<SequencePtr>()->items;
    const std::vector<Value>& more = right.As<SequencePtr>()->items;
    items.insert(items.end(), more.begin(), more.end());
    return MakeSequence(left.As<SequencePtr>()->kind, std::move(items), budget);
  }
  if (op == "*" && (left.IsText() || IsListOrTuple(left)) && right.IsInteger()) {
    return Repeat(left, right.integer(), budget);
  }
  if (op == "*" && left.IsInteger() && (right.IsText() || IsListOrTuple(right))) {
    return Repeat(right, left.integer(), budget);
  }
  return InvalidArgument("{} {} {} has no meaning", TypeName(left), op, TypeName(right));
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.IsUndefined()) return UndefinedError(value);
  if (value.IsInteger()) return IntegerArithmetic(0, "-", value.integer());
  if (value.Is<double>()) return Value(-value.real());
  return InvalidArgument("{} has no negative", TypeName(value));
}

absl::StatusOr<bool> CompareWith(const Value& left, std::string_view op, const Value& right, Budget* budget) {
  if (op == "==") return Equal(left, right, budget);
  if (op == "!=" || op == "not in") {
    PALIMPSEST_ASSIGN_OR_RETURN(const bool same,
                                op == "!=" ? Equal(left, right, budget) : Contains(right, left, budget));
    return !same;
  }
  if (op == "in") return Contains(right, left, budget);
  // Not a number: every order is false.
  if (left.IsNumber() && right.IsNumber() && (std::isnan(left.real()) || std::isnan(right.real())))
    return false;
  PALIMPSEST_ASSIGN_OR_RETURN(const int order, Compare(left, right, budget));
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name, Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value);
  if (name.starts_with("__")) return Value(Undefined{name});  // the sandbox hides Python's internals
  if (value.Is<LoopPtr>()) return LoopAttribute(*value.As<LoopPtr>(), name);
  if (value.Is<Namespace*>()) {
    const auto& attributes = value.As<Namespace*>()->attributes;
    const auto found = attributes.find(name);
    return found == attributes.end() ? Value(Undefined{name}) : found->second;
  }
  if (MethodExists(value, name)) return Value(Method{name});
  if (!value.Is<DictPtr>()) return Value(Undefined{name});
  PALIMPSEST_ASSIGN_OR_RETURN(const Value* found, FindEntry(*value.As<DictPtr>(), Value(name), budget));
  return found == nullptr ? Value(Undefined{name}) : *found;
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& key, std::string_view hint, Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value);
  if (value.Is<Markup>()) return InvalidArgument("taking a part of {} is not supported", TypeName(value));
  if (value.Is<DictPtr>()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Value* found, FindEntry(*value.As<DictPtr>(), key, budget));
    if (found != nullptr) return *found;
  }
  if (key.IsInteger() && value.IsText()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t length, Length(value, budget));
    const int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
    if (index < 0 || index >= length) return Value(Undefined{hint});
    return SliceText(value.text(), index, index + 1, 1, budget);
  }
  if (key.IsInteger() && (IsListOrTuple(value) || value.IsSequence(Sequence::Kind::kRange))) {
    const std::vector<Value>& items = value.As<SequencePtr>()->items;
    const auto length = static_cast<int64_t>(items.size());
    const int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
    return index < 0 || index >= length ? Value(Undefined{hint}) : items[index];
  }
  if (key.IsText() && (value.Is<Namespace*>() || value.Is<LoopPtr>())) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value found, GetAttribute(value, key.text(), budget));
    return found.IsUndefined() ? Value(Undefined{hint}) : found;
  }
  if (key.IsText() && MethodExists(value, key.text())) return Value(Method{hint});
  return Value(Undefined{hint});
}

absl::StatusOr<Value> GetSlice(const Value& value, const Value* start, const Value* stop, const Value* step,
                               Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::optional<int64_t> first, Bound(start));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::optional<int64_t> last, Bound(stop));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::optional<int64_t> stride, Bound(step));
  const bool sliceable = value.IsText() || IsListOrTuple(value) || value.IsSequence(Sequence::Kind::kRange);
  if (!sliceable) return InvalidArgument("{} has no slices", TypeName(value));
  if (stride == 0) return InvalidArgument("the step of a slice is 0");
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t length, Length(value, budget));
  // Beyond the length all steps are alike; the clamp keeps the additions below from overflowing.
  const int64_t by = std::clamp<int64_t>(stride.value_or(1), -length - 1, length + 1);
  const bool backwards = by < 0;
  const int64_t from = first.has_value() ? ClampBound(*first, length, backwards) : backwards ? length - 1 : 0;
  const int64_t to = last.has_value() ? ClampBound(*last, length, backwards) : backwards ? -1 : length;
  if (value.IsText()) return SliceText(value.text(), from, to, by, budget);
  const Sequence& sequence = *value.As<SequencePtr>();
  std::vector<Value> items;
  for (int64_t i = from; backwards ? i > to : i < to; i += by) items.push_back(sequence.items[i]);
  return MakeSequence(sequence.kind, std::move(items), budget);
}

}  // namespace palimpsest::jinja
