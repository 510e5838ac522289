#include "text/jinja/methods.h"

#include <algorithm>

#include "proto/base/status.h"

namespace palimpsest::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// The methods that Python has; a template may ask for them without calling ("is defined").
constexpr std::string_view kTextMethods[] = {
    "capitalize", "casefold",     "center",       "count",   "encode",     "endswith",    "expandtabs",
    "find",       "format",       "format_map",   "index",   "isalnum",    "isalpha",     "isascii",
    "isdecimal",  "isdigit",      "isidentifier", "islower", "isnumeric",  "isprintable", "isspace",
    "istitle",    "isupper",      "join",         "ljust",   "lower",      "lstrip",      "maketrans",
    "partition",  "removeprefix", "removesuffix", "replace", "rfind",      "rindex",      "rjust",
    "rpartition", "rsplit",       "rstrip",       "split",   "splitlines", "startswith",  "strip",
    "swapcase",   "title",        "translate",    "upper",   "zfill"};
constexpr std::string_view kDictMethods[] = {"copy", "fromkeys", "get", "items", "keys", "values"};
constexpr std::string_view kListMethods[] = {"copy", "count", "index"};
constexpr std::string_view kTupleMethods[] = {"count", "index"};

template <size_t N>
bool Has(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Result CallDictMethod(const Value& object, std::string_view name, const Arguments& arguments,
                      Budget* budget) {
  const Dict& dict = *object.As<DictPtr>();
  if (name == "get") {
    PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"key", "default"}, 1));
    if (!arguments.named.empty()) return InvalidArgument("get takes its arguments without names");
    PALIMPSEST_ASSIGN_OR_RETURN(const Value* found, FindEntry(dict, *bound[0], budget));
    if (found != nullptr) return *found;
    return bound[1] == nullptr ? Value(None{}) : *bound[1];
  }
  PALIMPSEST_RETURN_IF_ERROR(Bind(name, arguments, {}, 0).status());
  if (name == "copy") return object;
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") items.push_back(key);
    if (name == "values") items.push_back(value);
    if (name != "items") continue;
    PALIMPSEST_ASSIGN_OR_RETURN(Value pair, MakeSequence(Sequence::Kind::kTuple, {key, value}, budget));
    items.push_back(std::move(pair));
  }
  if (name == "keys") return MakeSequence(Sequence::Kind::kKeys, std::move(items), budget);
  if (name == "values") return MakeSequence(Sequence::Kind::kValues, std::move(items), budget);
  if (name == "items") return MakeSequence(Sequence::Kind::kItems, std::move(items), budget);
  return InvalidArgument("the method '{}' of dicts is not supported", name);
}

Result CallListMethod(const Value& object, std::string_view name, const Arguments& arguments,
                      Budget* budget) {
  if (name == "copy") return object;
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind(name, arguments, {"value"}, 1));
  int64_t count = 0, index = 0;
  for (const Value& item : object.As<SequencePtr>()->items) {
    PALIMPSEST_RETURN_IF_ERROR(budget->Steps(1));
    PALIMPSEST_ASSIGN_OR_RETURN(const bool equal, Equal(item, *bound[0], budget));
    if (equal && name == "index") return Value(index);
    count += equal ? 1 : 0;
    ++index;
  }
  if (name == "count") return Value(count);
  return InvalidArgument("index: the value is not in the list");
}

// loop.cycle(a, b, ...)
Result Cycle(const Loop& loop, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    return InvalidArgument("loop.cycle takes one value or more, without names");
  }
  return arguments.positional[loop.index % arguments.positional.size()];
}

}  // namespace

bool MethodExists(const Value& object, std::string_view name) {
  if (object.IsText()) return Has(kTextMethods, name);
  if (object.Is<DictPtr>()) return Has(kDictMethods, name);
  if (object.IsSequence(Sequence::Kind::kList)) return Has(kListMethods, name);
  if (object.IsSequence(Sequence::Kind::kTuple)) return Has(kTupleMethods, name);
  return object.Is<LoopPtr>() && name == "cycle";
}

absl::StatusOr<Value> CallMethod(const Value& object, std::string_view name, const Arguments& arguments,
                                 Budget* budget) {
  if (object.IsText()) return CallTextMethod(object, name, arguments, budget);
  if (object.Is<DictPtr>()) return CallDictMethod(object, name, arguments, budget);
  if (object.Is<LoopPtr>()) return Cycle(*object.As<LoopPtr>(), arguments);
  return CallListMethod(object, name, arguments, budget);
}

}  // namespace palimpsest::jinja
