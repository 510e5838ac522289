#include <algorithm>
#include <map>
#include <optional>

#include "proto/base/status.h"
#include "text/jinja/convert.h"
#include "text/jinja/filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"
#include "text/jinja/utf8.h"

namespace palimpsest::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// `attribute` of map, sort, ...: "a.b.0" looks up one part after the other; nullptr gives the item itself.
Result LookUp(Value item, const Value* attribute, Budget* budget) {
  if (attribute == nullptr || attribute->Is<None>()) return item;
  if (attribute->IsInteger()) return GetItem(item, *attribute, "", budget);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string path, TextArgument(attribute, "attribute", ""));
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    const std::optional<int64_t> index = digits ? StringToInteger(part) : std::nullopt;
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    PALIMPSEST_ASSIGN_OR_RETURN(item,
                                GetItem(item, index.has_value() ? Value(*index) : Value(part), "", budget));
    begin = end + 1;
  }
  return item;
}

// What sort, unique, min and max compare: strings without regard to case, unless told otherwise.
Result Key(const Value& item, const Value* attribute, const Value* case_sensitive, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(Value key, LookUp(item, attribute, budget));
  if (!key.IsText() || FlagArgument(case_sensitive, false)) return key;
  PALIMPSEST_RETURN_IF_ERROR(budget->Write(static_cast<int64_t>(key.text().size())));
  PALIMPSEST_ASSIGN_OR_RETURN(std::string lower, ToLower(key.text()));
  return Value(std::move(lower));
}

// Sorts `order` (indices) by `keys`, stable. A comparison that fails ends the sort with that error.
absl::Status SortByKeys(const std::vector<Value>& keys, bool reverse, std::vector<size_t>* order,
                        Budget* budget) {
  absl::Status status;
  auto less = [&](size_t a, size_t b) {
    if (!status.ok()) return false;
    if (status = budget->Steps(1); !status.ok()) return false;
    const absl::StatusOr<int> result =
        reverse ? Compare(keys[b], keys[a], budget) : Compare(keys[a], keys[b], budget);
    if (!result.ok()) return status = result.status(), false;
    return *result < 0;
  };
  // Insertion by binary search does not break when `less` stops being an order, as std::sort could (and with
  // NaN).
  std::vector<size_t> sorted;
  for (const size_t index : *order) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1 + static_cast<int64_t>(sorted.size()) / 512));
    sorted.insert(std::upper_bound(sorted.begin(), sorted.end(), index, less), index);
    PALIMPSEST_RETURN_IF_ERROR(status);
  }
  *order = std::move(sorted);
  return absl::OkStatus();
}

Result Sorted(const std::vector<Value>& items, const std::vector<Value>& keys, bool reverse, Budget* budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  PALIMPSEST_RETURN_IF_ERROR(SortByKeys(keys, reverse, &order, budget));
  std::vector<Value> sorted;
  sorted.reserve(order.size());
  for (const size_t index : order) sorted.push_back(items[index]);
  return MakeSequence(Sequence::Kind::kList, std::move(sorted), budget);
}

Result Sort(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound,
                              Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  if (bound[2] != nullptr && bound[2]->IsText() && bound[2]->text().find(',') != std::string::npos) {
    return InvalidArgument("sort by several attributes is not supported");
  }
  std::vector<Value> keys;
  for (const Value& item : list->items) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value key, Key(item, bound[2], bound[1], budget));
    // In a list, as Jinja does: equal keys need no order then (undefined ones have none).
    PALIMPSEST_ASSIGN_OR_RETURN(key, MakeSequence(Sequence::Kind::kList, {std::move(key)}, budget));
    keys.push_back(std::move(key));
  }
  return Sorted(list->items, keys, FlagArgument(bound[0], false), budget);
}

Result DictSort(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound,
                              Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string by, TextArgument(bound[1], "by", "key"));
  if (by != "key" && by != "value") return InvalidArgument("dictsort: by is 'key' or 'value'");
  if (!input.Is<DictPtr>()) return InvalidArgument("dictsort takes a dict, not {}", TypeName(input));
  PALIMPSEST_ASSIGN_OR_RETURN(const Value items, CallMethod(input, "items", Arguments{}, budget));
  const Value position(int64_t{by == "key" ? 0 : 1});
  std::vector<Value> keys;
  for (const Value& item : items.As<SequencePtr>()->items) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value key, Key(item, &position, bound[0], budget));
    keys.push_back(std::move(key));
  }
  return Sorted(items.As<SequencePtr>()->items, keys, FlagArgument(bound[2], false), budget);
}

Result Unique(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound,
                              Bind("unique", arguments, {"case_sensitive", "attribute"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  std::vector<Value> items;
  Dict seen;
  for (const Value& item : list->items) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value key, Key(item, bound[1], bound[0], budget));
    const size_t before = seen.entries.size();
    PALIMPSEST_RETURN_IF_ERROR(SetEntry(&seen, std::move(key), Value(None{}), budget));
    if (seen.entries.size() > before) items.push_back(item);
  }
  return MakeSequence(Sequence::Kind::kGenerator, std::move(items), budget);
}

Result Extreme(std::string_view name, int sign, const Value& input, const Arguments& arguments,
               Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"case_sensitive", "attribute"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  if (list->items.empty()) return Value(Undefined{"min or max of nothing"});
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : list->items) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    PALIMPSEST_ASSIGN_OR_RETURN(Value key, Key(item, bound[1], bound[0], budget));
    int order = 1;
    if (best != nullptr) {
      PALIMPSEST_ASSIGN_OR_RETURN(order, Compare(key, best_key, budget));
      order *= sign;
    }
    if (order <= 0) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}
Result Min(const Value& input, const Arguments& arguments, Budget* budget) {
  return Extreme("min", -1, input, arguments, budget);
}
Result Max(const Value& input, const Arguments& arguments, Budget* budget) {
  return Extreme("max", 1, input, arguments, budget);
}

Result Sum(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("sum", arguments, {"attribute", "start"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  Value sum = bound[1] == nullptr ? Value(int64_t{0}) : *bound[1];
  if (sum.IsText()) return InvalidArgument("sum does not add strings; use join");
  for (const Value& item : list->items) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    PALIMPSEST_ASSIGN_OR_RETURN(const Value term, LookUp(item, bound[0], budget));
    PALIMPSEST_ASSIGN_OR_RETURN(sum, Arithmetic(std::move(sum), "+", term, budget));
  }
  return sum;
}

Result First(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(Bind("first", arguments, {}, 0).status());
  if (input.IsSequence(Sequence::Kind::kGenerator)) {
    Sequence& generator = *input.As<SequencePtr>();
    if (generator.consumed == generator.items.size()) return Value(Undefined{"first of nothing"});
    return generator.items[generator.consumed++];
  }
  if (input.IsText()) return GetItem(input, Value(int64_t{0}), "first of nothing", budget);
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  return list->items.empty() ? Value(Undefined{"first of nothing"}) : list->items.front();
}

Result Last(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(Bind("last", arguments, {}, 0).status());
  if (input.IsSequence(Sequence::Kind::kGenerator))
    return InvalidArgument("last of a generator has no meaning");
  if (input.IsText()) return GetItem(input, Value(int64_t{-1}), "last of nothing", budget);
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  return list->items.empty() ? Value(Undefined{"last of nothing"}) : list->items.back();
}

Result LengthOf(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(Bind("length", arguments, {}, 0).status());
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t length, Length(input, budget));
  return Value(length);
}

Result ToList(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(Bind("list", arguments, {}, 0).status());
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  return MakeSequence(Sequence::Kind::kList, list->items, budget);
}

Result Reverse(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_RETURN_IF_ERROR(Bind("reverse", arguments, {}, 0).status());
  if (input.IsText()) {
    const Value step(int64_t{-1});
    return GetSlice(input, nullptr, nullptr, &step, budget);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  return MakeSequence(Sequence::Kind::kGenerator, {list->items.rbegin(), list->items.rend()}, budget);
}

Result JoinItems(const Value& input, const Arguments& arguments, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("join", arguments, {"d", "attribute"}, 0));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string separator,
                              bound[0] == nullptr ? std::string() : ToString(*bound[0], budget));
  PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
  std::vector<Value> items;
  for (const Value& item : list->items) {
    PALIMPSEST_ASSIGN_OR_RETURN(Value part, LookUp(item, bound[1], budget));
    items.push_back(std::move(part));
  }
  return Join(separator, items, false, budget);
}

// map(attribute='a', default=x), or map('filter', its arguments)
Result Map(const Value& input, const Arguments& arguments, Budget* budget) {
  std::vector<Value> items;
  if (IsTrue(input)) {
    PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
    const bool by_attribute = arguments.positional.empty();
    static const Arguments* const kNone = new Arguments;
    PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("map", by_attribute ? arguments : *kNone,
                                                       {"attribute", "default"}, by_attribute ? 1 : 0));
    Arguments rest = arguments;
    std::string filter;
    if (!by_attribute) {
      PALIMPSEST_ASSIGN_OR_RETURN(filter, TextArgument(&arguments.positional[0], "the filter of map", ""));
      rest.positional.erase(rest.positional.begin());
    }
    for (const Value& item : list->items) {
      PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
      PALIMPSEST_ASSIGN_OR_RETURN(Value mapped, by_attribute ? LookUp(item, bound[0], budget)
                                                             : ApplyFilter(filter, item, rest, budget));
      const bool replace = mapped.IsUndefined() && bound[1] != nullptr && !bound[1]->Is<None>();
      if (replace) mapped = *bound[1];
      items.push_back(std::move(mapped));
    }
  }
  return MakeSequence(Sequence::Kind::kGenerator, std::move(items), budget);
}

// select('test', ...), selectattr('attribute', 'test', ...); without a test, what is true.
Result Pick(std::string_view name, bool by_attribute, bool keep, const Value& input,
            const Arguments& arguments, Budget* budget) {
  if (!arguments.named.empty()) return InvalidArgument("{} takes its arguments without names", name);
  std::vector<Value> items;
  if (IsTrue(input)) {
    PALIMPSEST_ASSIGN_OR_RETURN(const SequencePtr list, Elements(input, budget));
    std::vector<Value> rest = arguments.positional;
    const size_t test_at = by_attribute ? 1 : 0;
    if (by_attribute && rest.empty()) return InvalidArgument("{} needs the name of an attribute", name);
    const bool has_test = rest.size() > test_at;
    std::string test;
    if (has_test) {
      PALIMPSEST_ASSIGN_OR_RETURN(test, TextArgument(&rest[test_at], "the name of a test", ""));
    }
    const std::vector<Value> test_arguments(rest.begin() + std::min(test_at + 1, rest.size()), rest.end());
    for (const Value& item : list->items) {
      PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
      PALIMPSEST_ASSIGN_OR_RETURN(const Value tested,
                                  LookUp(item, by_attribute ? &rest[0] : nullptr, budget));
      bool holds = IsTrue(tested);
      if (has_test) {
        PALIMPSEST_ASSIGN_OR_RETURN(holds, ApplyTest(test, tested, test_arguments, budget));
      }
      if (holds == keep) items.push_back(item);
    }
  }
  return MakeSequence(Sequence::Kind::kGenerator, std::move(items), budget);
}
Result Select(const Value& input, const Arguments& arguments, Budget* budget) {
  return Pick("select", false, true, input, arguments, budget);
}
Result Reject(const Value& input, const Arguments& arguments, Budget* budget) {
  return Pick("reject", false, false, input, arguments, budget);
}
Result SelectAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  return Pick("selectattr", true, true, input, arguments, budget);
}
Result RejectAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  return Pick("rejectattr", true, false, input, arguments, budget);
}

}  // namespace

Filter FindListFilter(std::string_view name) {
  static const auto* const kFilters = new std::map<std::string_view, Filter>{
      {"count", LengthOf},  {"dictsort", DictSort}, {"first", First},
      {"join", JoinItems},  {"last", Last},         {"length", LengthOf},
      {"list", ToList},     {"map", Map},           {"max", Max},
      {"min", Min},         {"reject", Reject},     {"rejectattr", RejectAttribute},
      {"reverse", Reverse}, {"select", Select},     {"selectattr", SelectAttribute},
      {"sort", Sort},       {"sum", Sum},           {"unique", Unique},
  };
  const auto found = kFilters->find(name);
  return found == kFilters->end() ? nullptr : found->second;
}

}  // namespace palimpsest::jinja
