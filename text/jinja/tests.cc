#include "text/jinja/tests.h"

#include <functional>
#include <map>

#include "proto/base/status.h"
#include "text/jinja/arguments.h"
#include "text/jinja/convert.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"

namespace palimpsest::jinja {
namespace {

using Result = absl::StatusOr<bool>;
using Arguments0 = bool (*)(const Value&);
using Arguments1 = Result (*)(const Value&, const Value&, Budget*);

const std::map<std::string_view, Arguments0>& Predicates() {
  static const auto* const kTests = new std::map<std::string_view, Arguments0>{
      {"defined", [](const Value& v) { return !v.IsUndefined(); }},
      {"undefined", [](const Value& v) { return v.IsUndefined(); }},
      {"none", [](const Value& v) { return v.Is<None>(); }},
      {"boolean", [](const Value& v) { return v.Is<bool>(); }},
      {"true", [](const Value& v) { return v.Is<bool>() && v.As<bool>(); }},
      {"false", [](const Value& v) { return v.Is<bool>() && !v.As<bool>(); }},
      {"integer", [](const Value& v) { return v.Is<int64_t>(); }},
      {"float", [](const Value& v) { return v.Is<double>(); }},
      {"number", [](const Value& v) { return v.IsNumber(); }},
      {"string", [](const Value& v) { return v.IsText() || v.Is<Markup>(); }},
      {"mapping", [](const Value& v) { return v.Is<DictPtr>(); }},
      {"escaped", [](const Value& v) { return v.Is<Markup>(); }},
      {"sequence",  // has a length and subscripts, which in Jinja undefined values have too
       [](const Value& v) {
         return v.IsText() || v.Is<Markup>() || v.Is<DictPtr>() || v.IsUndefined() ||
                v.IsSequence(Sequence::Kind::kList) || v.IsSequence(Sequence::Kind::kTuple) ||
                v.IsSequence(Sequence::Kind::kRange);
       }},
      {"iterable",
       [](const Value& v) {
         return v.IsText() || v.Is<Markup>() || v.Is<DictPtr>() || v.IsUndefined() || v.Is<SequencePtr>() ||
                v.Is<LoopPtr>();
       }},
      {"callable",
       [](const Value& v) {
         return v.Is<const Statement*>() || v.Is<Builtin>() || v.Is<Method>() || v.IsUndefined() ||
                v.Is<LoopPtr>();
       }},
  };
  return *kTests;
}

Result IsSame(const Value& a, const Value& b, Budget*) {
  const bool singletons = (a.Is<bool>() || a.Is<None>()) && (b.Is<bool>() || b.Is<None>());
  if (!singletons && a.data().index() == b.data().index()) {
    return InvalidArgument("'is sameas' is supported for true, false and none only, not for {}", TypeName(a));
  }
  return singletons && a.Is<bool>() == b.Is<bool>() && IsTrue(a) == IsTrue(b);
}

template <int remainder>
Result HasParity(const Value& value, const Value&, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value rest, Arithmetic(value, "%", Value(int64_t{2}), budget));
  return Equal(rest, Value(int64_t{remainder}), budget);
}

Result IsDivisible(const Value& value, const Value& by, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value rest, Arithmetic(value, "%", by, budget));
  return Equal(rest, Value(int64_t{0}), budget);
}

// "upper" and "lower": whether the value's text is in that case.
Result HasCase(const Value& value, const char* method, Budget* budget) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::string text, ToString(value, budget));
  PALIMPSEST_ASSIGN_OR_RETURN(const Value result,
                              CallMethod(Value(std::move(text)), method, Arguments{}, budget));
  return IsTrue(result);
}

template <int op>
Result ByOperator(const Value& a, const Value& b, Budget* budget) {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">=", "in"};
  return CompareWith(a, kOperators[op], b, budget);
}

struct Test {
  size_t arguments;
  Arguments1 apply;
};

const std::map<std::string_view, Test>& Functions() {
  static const auto* const kTests = new std::map<std::string_view, Test>{
      {"odd", {0, HasParity<1>}},
      {"even", {0, HasParity<0>}},
      {"upper",
       {0, [](const Value& v, const Value&, Budget* budget) { return HasCase(v, "isupper", budget); }}},
      {"lower",
       {0, [](const Value& v, const Value&, Budget* budget) { return HasCase(v, "islower", budget); }}},
      {"divisibleby", {1, IsDivisible}},
      {"sameas", {1, IsSame}},
      {"in", {1, ByOperator<6>}},
      {"==", {1, ByOperator<0>}},
      {"eq", {1, ByOperator<0>}},
      {"equalto", {1, ByOperator<0>}},
      {"!=", {1, ByOperator<1>}},
      {"ne", {1, ByOperator<1>}},
      {"<", {1, ByOperator<2>}},
      {"lt", {1, ByOperator<2>}},
      {"lessthan", {1, ByOperator<2>}},
      {"<=", {1, ByOperator<3>}},
      {"le", {1, ByOperator<3>}},
      {">", {1, ByOperator<4>}},
      {"gt", {1, ByOperator<4>}},
      {"greaterthan", {1, ByOperator<4>}},
      {">=", {1, ByOperator<5>}},
      {"ge", {1, ByOperator<5>}},
  };
  return *kTests;
}

}  // namespace

bool TestExists(std::string_view name) { return Predicates().contains(name) || Functions().contains(name); }

size_t TestArgumentCount(std::string_view name) {
  const auto found = Functions().find(name);
  return found == Functions().end() ? 0 : found->second.arguments;
}

absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const std::vector<Value>& arguments,
                               Budget* budget) {
  if (!TestExists(name)) return InvalidArgument("the test '{}' is not supported", name.substr(0, 64));
  if (arguments.size() != TestArgumentCount(name)) {
    return InvalidArgument("the test '{}' takes {} arguments, not {}", name, TestArgumentCount(name),
                           arguments.size());
  }
  if (const auto found = Predicates().find(name); found != Predicates().end()) return found->second(value);
  return Functions().at(name).apply(value, arguments.empty() ? Value() : arguments[0], budget);
}

}  // namespace palimpsest::jinja
