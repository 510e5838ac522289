#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "proto/base/status.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

// A generator gives each element once.
std::vector<Value> TakeRest(Sequence* generator) {
  std::vector<Value> rest(generator->items.begin() + generator->consumed, generator->items.end());
  generator->consumed = generator->items.size();
  return rest;
}

absl::StatusOr<bool> EqualElements(const std::vector<Value>& a, const std::vector<Value>& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(a[i], b[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(const Dict& a, const Dict& b, Budget* budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Value* other, FindEntry(b, key, budget));
    if (other == nullptr) return false;
    PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

bool IsHashable(const Value& value) {
  if (value.Is<DictPtr>()) return false;
  if (!value.Is<SequencePtr>()) return true;
  const Sequence& sequence = *value.As<SequencePtr>();
  if (sequence.kind == Sequence::Kind::kRange) return true;
  return sequence.kind == Sequence::Kind::kTuple &&
         std::all_of(sequence.items.begin(), sequence.items.end(), IsHashable);
}

template <typename T>
int Order(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

std::string_view TypeName(const Value& value) {
  struct Namer {
    std::string_view operator()(const Undefined&) { return "an undefined value"; }
    std::string_view operator()(const None&) { return "None"; }
    std::string_view operator()(bool) { return "a boolean"; }
    std::string_view operator()(int64_t) { return "an integer"; }
    std::string_view operator()(double) { return "a float"; }
    std::string_view operator()(const Text&) { return "a string"; }
    std::string_view operator()(const Markup&) { return "markup (of safe or escape)"; }
    std::string_view operator()(const SequencePtr& s) {
      static constexpr std::string_view kNames[] = {"a list",        "a tuple",         "a range",
                                                    "a dict's keys", "a dict's values", "a dict's items",
                                                    "a generator"};
      return kNames[static_cast<int>(s->kind)];
    }
    std::string_view operator()(const DictPtr&) { return "a dict"; }
    std::string_view operator()(Namespace*) { return "a namespace"; }
    std::string_view operator()(const Statement*) { return "a macro"; }
    std::string_view operator()(const LoopPtr&) { return "a loop"; }
    std::string_view operator()(Builtin) { return "a function"; }
    std::string_view operator()(const Method&) { return "a method"; }
  };
  return std::visit([](const auto& data) { return Namer()(data); }, value.data());
}

absl::Status UndefinedError(const Value& value) {
  const std::string_view name = value.As<Undefined>().name;
  return InvalidArgument("'{}' is undefined", name.empty() ? "this value" : name);
}

bool IsTrue(const Value& value) {
  if (value.Is<bool>()) return value.As<bool>();
  if (value.Is<int64_t>()) return value.As<int64_t>() != 0;
  if (value.Is<double>()) return value.As<double>() != 0;
  if (value.IsText()) return !value.text().empty();
  if (value.Is<Markup>()) return !value.As<Markup>().text->empty();
  if (value.Is<DictPtr>()) return !value.As<DictPtr>()->entries.empty();
  if (value.Is<SequencePtr>()) {
    const Sequence& sequence = *value.As<SequencePtr>();
    return sequence.kind == Sequence::Kind::kGenerator || !sequence.items.empty();
  }
  return !value.IsUndefined() && !value.Is<None>();
}

int DepthOf(const Value& value) {
  if (value.Is<SequencePtr>()) return value.As<SequencePtr>()->depth;
  if (value.Is<DictPtr>()) return value.As<DictPtr>()->depth;
  if (value.Is<LoopPtr>()) return value.As<LoopPtr>()->items->depth + 1;
  return 0;
}

absl::StatusOr<Value> MakeSequence(Sequence::Kind kind, std::vector<Value> items, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Elements(static_cast<int64_t>(items.size()) + 1));
  auto sequence = std::make_shared<Sequence>();
  sequence->kind = kind;
  for (const Value& item : items) sequence->depth = std::max(sequence->depth, DepthOf(item) + 1);
  if (sequence->depth > kNestingMax) return InvalidArgument("lists nest deeper than {}", kNestingMax);
  sequence->items = std::move(items);
  return Value(std::move(sequence));
}

absl::Status SetEntry(Dict* dict, Value key, Value value, Budget* budget) {
  if (!IsHashable(key)) return InvalidArgument("{} cannot be a key of a dict", TypeName(key));
  PALIMPSEST_RETURN_IF_ERROR(budget->Elements(2));
  dict->depth = std::max({dict->depth, DepthOf(key) + 1, DepthOf(value) + 1});
  if (dict->depth > kNestingMax) return InvalidArgument("dicts nest deeper than {}", kNestingMax);
  PALIMPSEST_ASSIGN_OR_RETURN(const Value* found, FindEntry(*dict, key, budget));
  if (found != nullptr) {
    *const_cast<Value*>(found) = std::move(value);  // `found` points into *dict, which the caller may change
  } else {
    dict->entries.emplace_back(std::move(key), std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<const Value*> FindEntry(const Dict& dict, const Value& key, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(budget->Steps(static_cast<int64_t>(dict.entries.size()) / 16));
  for (const auto& [name, value] : dict.entries) {
    PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(name, key, budget));
    if (equal) return &value;
  }
  return nullptr;
}

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget) {
  if (a.IsInteger() && b.IsInteger()) return a.integer() == b.integer();
  if (a.IsNumber() && b.IsNumber()) return a.real() == b.real();
  if (a.Is<Markup>() || b.Is<Markup>())
    return InvalidArgument("comparing {} is not supported", TypeName(Markup{}));
  if (a.data().index() != b.data().index()) return false;
  if (a.IsText()) {
    if (a.text().size() != b.text().size()) return false;
    PALIMPSEST_RETURN_IF_ERROR(budget->Read(a.text().size()));
    return a.text() == b.text();
  }
  if (a.Is<SequencePtr>()) {
    const Sequence &x = *a.As<SequencePtr>(), &y = *b.As<SequencePtr>();
    const bool by_identity = x.kind == Sequence::Kind::kGenerator || x.kind == Sequence::Kind::kValues;
    if (x.kind != y.kind || by_identity) return &x == &y;
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(static_cast<int64_t>(x.items.size())));
    return EqualElements(x.items, y.items, budget);
  }
  if (a.Is<DictPtr>()) return EqualDicts(*a.As<DictPtr>(), *b.As<DictPtr>(), budget);
  if (a.Is<Namespace*>()) return a.As<Namespace*>() == b.As<Namespace*>();
  if (a.Is<const Statement*>()) return a.As<const Statement*>() == b.As<const Statement*>();
  if (a.Is<Builtin>()) return a.As<Builtin>() == b.As<Builtin>();
  return a.IsUndefined() || a.Is<None>();
}

absl::StatusOr<int> Compare(const Value& a, const Value& b, Budget* budget) {
  if (a.IsUndefined()) return UndefinedError(a);
  if (b.IsUndefined()) return UndefinedError(b);
  if (a.IsInteger() && b.IsInteger()) return Order(a.integer(), b.integer());
  if (a.IsNumber() && b.IsNumber()) return Order(a.real(), b.real());
  if (a.IsText() && b.IsText()) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Read(std::min(a.text().size(), b.text().size())));
    return Order(a.text(), b.text());  // the order of UTF-8 bytes is that of code points
  }
  for (Sequence::Kind kind : {Sequence::Kind::kList, Sequence::Kind::kTuple}) {
    if (!a.IsSequence(kind) || !b.IsSequence(kind)) continue;
    const std::vector<Value>&x = a.As<SequencePtr>()->items, &y = b.As<SequencePtr>()->items;
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(static_cast<int64_t>(std::min(x.size(), y.size()))));
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(x[i], y[i], budget));
      if (!equal) return Compare(x[i], y[i], budget);
    }
    return Order(x.size(), y.size());
  }
  return InvalidArgument("cannot order {} and {}", TypeName(a), TypeName(b));
}

absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle, Budget* budget) {
  if (haystack.IsText()) {
    if (needle.IsUndefined()) return UndefinedError(needle);
    if (!needle.IsText()) return InvalidArgument("'in' a string needs a string, not {}", TypeName(needle));
    PALIMPSEST_RETURN_IF_ERROR(budget->Search(haystack.text().size(), needle.text().size()));
    return haystack.text().find(needle.text()) != std::string::npos;
  }
  if (haystack.Is<DictPtr>()) {
    if (!IsHashable(needle)) return InvalidArgument("{} cannot be a key of a dict", TypeName(needle));
    PALIMPSEST_ASSIGN_OR_RETURN(const Value* found, FindEntry(*haystack.As<DictPtr>(), needle, budget));
    return found != nullptr;
  }
  if (!haystack.IsUndefined() && !haystack.Is<SequencePtr>()) {
    return InvalidArgument("'in' needs a string, list or dict, not {}", TypeName(haystack));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(SequencePtr elements, Elements(haystack, budget));
  PALIMPSEST_RETURN_IF_ERROR(budget->Steps(static_cast<int64_t>(elements->items.size())));
  for (const Value& element : elements->items) {
    PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(element, needle, budget));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<SequencePtr> Elements(const Value& value, Budget* budget) {
  std::vector<Value> items;
  if (value.Is<SequencePtr>()) {
    const SequencePtr& sequence = value.As<SequencePtr>();
    if (sequence->kind != Sequence::Kind::kGenerator) return sequence;
    items = TakeRest(sequence.get());
  } else if (value.Is<DictPtr>()) {
    for (const auto& [key, unused] : value.As<DictPtr>()->entries) items.push_back(key);
  } else if (value.IsText()) {
    const std::string& text = value.text();
    PALIMPSEST_RETURN_IF_ERROR(budget->Elements(2 * CountCodePoints(text)));
    for (size_t i = 0; i < text.size();) {
      const size_t begin = i;
      NextCodePoint(text, &i);
      items.emplace_back(text.substr(begin, i - begin));
    }
  } else if (!value.IsUndefined()) {
    return InvalidArgument("{} has no elements", TypeName(value));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(Value list, MakeSequence(Sequence::Kind::kList, std::move(items), budget));
  return list.As<SequencePtr>();
}

absl::StatusOr<int64_t> Length(const Value& value, Budget* budget) {
  if (value.IsUndefined()) return 0;
  if (value.IsText()) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Read(value.text().size()));
    return CountCodePoints(value.text());
  }
  if (value.Is<DictPtr>()) return static_cast<int64_t>(value.As<DictPtr>()->entries.size());
  if (value.Is<LoopPtr>()) return static_cast<int64_t>(value.As<LoopPtr>()->items->items.size());
  if (value.Is<SequencePtr>() && !value.IsSequence(Sequence::Kind::kGenerator)) {
    return static_cast<int64_t>(value.As<SequencePtr>()->items.size());
  }
  return InvalidArgument("{} has no length", TypeName(value));
}

}  // namespace palimpsest::jinja
