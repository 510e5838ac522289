// The values a template computes with: Python's, as far as chat templates meet them. Immutable, except
// namespaces.
//
// Owns   : strings, lists and dicts are shared; namespaces and macros belong to the render or the template,
//          values only point at them (so a namespace that contains itself leaks nothing).
// Limits : lists, tuples and dicts nest at most kNestingMax deep, so recursion over a value is bounded.
// Threads: values of a parsed template are read by many renders; a render's own values by one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/budget.h"

namespace palimpsest::jinja {

class Value;
struct Statement;  // ast.h

struct Undefined {
  std::string_view name;  // what was looked up; lives in the template
};
struct None {};
using Text = std::shared_ptr<std::string>;  // changed in place only by its single owner

// What `safe` and `escape` return. Printed like text; refused elsewhere, for Python would escape what it is
// joined to.
struct Markup {
  Text text;
};

struct Sequence {
  enum class Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kGenerator };
  Kind kind = Kind::kList;
  int depth = 1;  // 1 + that of the deepest element
  std::vector<Value> items;
  size_t consumed = 0;  // of a generator: elements already taken
};
using SequencePtr = std::shared_ptr<Sequence>;

struct Dict {
  int depth = 1;
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion, keys differ
};
using DictPtr = std::shared_ptr<Dict>;

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// The variable `loop` of one for statement.
struct Loop {
  SequencePtr items;
  int64_t index = 0;  // from 0
  int64_t level = 0;  // loops around this one
};
using LoopPtr = std::shared_ptr<Loop>;

enum class Builtin { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

// A method looked up but not called ("x.items is defined").
struct Method {
  std::string_view name;
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, Text, Markup, SequencePtr, DictPtr,
                               Namespace*, const Statement*, LoopPtr, Builtin, Method>;
  Value() : data_(Undefined{}) {}
  template <typename T>
  requires std::is_constructible_v<Variant, T> &&(!std::is_same_v<std::decay_t<T>, Value>)Value(T data)
      : data_(std::move(data)) {}  // NOLINT: a value is what it holds
  Value(std::string text) : data_(std::make_shared<std::string>(std::move(text))) {}  // NOLINT
  Value(std::string_view text) : Value(std::string(text)) {}                          // NOLINT
  Value(const char* text) : Value(std::string(text)) {}                               // NOLINT
  Value(int) = delete;                                                                // say bool or int64_t

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  const T& As() const {
    return *std::get_if<T>(&data_);
  }
  template <typename T>
  T* Mutable() {
    return std::get_if<T>(&data_);
  }

  const Variant& data() const { return data_; }

  bool IsUndefined() const { return Is<Undefined>(); }
  bool IsText() const { return Is<Text>(); }
  bool IsSequence(Sequence::Kind kind) const { return Is<SequencePtr>() && As<SequencePtr>()->kind == kind; }
  bool IsInteger() const { return Is<int64_t>() || Is<bool>(); }  // Python's bool is an int
  bool IsNumber() const { return IsInteger() || Is<double>(); }
  const std::string& text() const { return *As<Text>(); }
  int64_t integer() const { return Is<bool>() ? As<bool>() : As<int64_t>(); }
  double real() const { return Is<double>() ? As<double>() : static_cast<double>(integer()); }

 private:
  Variant data_;
};

// For messages: "a string", "None"; never the content.
std::string_view TypeName(const Value& value);
// "'name' is undefined", for any use that Python refuses.
absl::Status UndefinedError(const Value& value);

bool IsTrue(const Value& value);
int DepthOf(const Value& value);

// A list (or other kind) of `items`; charges for them and checks the depth.
absl::StatusOr<Value> MakeSequence(Sequence::Kind kind, std::vector<Value> items, Budget* budget);
// Adds or replaces; the key must be hashable.
absl::Status SetEntry(Dict* dict, Value key, Value value, Budget* budget);
// nullptr if absent.
absl::StatusOr<const Value*> FindEntry(const Dict& dict, const Value& key, Budget* budget);

// ==; InvalidArgument only when the budget is spent.
absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget);
// <0, 0, >0; InvalidArgument for types that Python does not order.
absl::StatusOr<int> Compare(const Value& a, const Value& b, Budget* budget);
// `needle in haystack`
absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle, Budget* budget);

// The elements one by one: of lists, of a dict's keys, of a string's characters, of undefined (none). Takes
// from a generator all that is left.
absl::StatusOr<SequencePtr> Elements(const Value& value, Budget* budget);
// len(); InvalidArgument for what has none.
absl::StatusOr<int64_t> Length(const Value& value, Budget* budget);

}  // namespace palimpsest::jinja
