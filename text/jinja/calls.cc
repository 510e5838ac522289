// The calls of the interpreter: methods, macros and the functions every template knows.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "text/jinja/functions.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"

namespace palimpsest::jinja {

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression, const Frame& frame) {
  const Expression& callee = *expression.args[0];
  Value function;
  if (callee.kind == Expression::Kind::kAttribute) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.args[0], frame));
    if (MethodExists(object, callee.name)) {
      PALIMPSEST_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, frame));
      return CallMethod(object, callee.name, arguments, &budget_);
    }
    PALIMPSEST_ASSIGN_OR_RETURN(function, GetAttribute(object, callee.name, &budget_));
    if (function.IsUndefined() && !object.Is<DictPtr>() && !object.Is<Namespace*>()) {
      return InvalidArgument("the method '{}' of {} is not supported", callee.name, TypeName(object));
    }
  } else {
    PALIMPSEST_ASSIGN_OR_RETURN(function, Evaluate(callee, frame));
  }
  if (function.IsUndefined()) return UndefinedError(function);
  PALIMPSEST_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, frame));
  if (function.Is<const Statement*>()) return CallMacro(*function.As<const Statement*>(), arguments);
  if (function.Is<Builtin>()) return CallBuiltin(function.As<Builtin>(), arguments);
  return InvalidArgument("calling {} is not supported", TypeName(function));
}

absl::StatusOr<Value> Interpreter::CallMacro(const Statement& macro, const Arguments& arguments) {
  const std::vector<Parameter>& parameters = macro.parameters;
  if (arguments.positional.size() > parameters.size()) {
    return InvalidArgument("the macro '{}' takes at most {} arguments, not {}", macro.text, parameters.size(),
                           arguments.positional.size());
  }
  Frame scope{&root_, {}};
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    scope.variables[parameters[i].name] = arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found =
        std::find_if(parameters.begin(), parameters.end(),
                     [&name = name](const Parameter& parameter) { return parameter.name == name; });
    if (found == parameters.end())
      return InvalidArgument("the macro '{}' has no argument '{}'", macro.text, name);
    if (!scope.variables.emplace(found->name, value).second) {
      return InvalidArgument("the macro '{}' is given '{}' twice", macro.text, name);
    }
  }
  for (const Parameter& parameter : parameters) {
    if (scope.variables.contains(parameter.name)) continue;
    Value value{Undefined{parameter.name}};
    if (parameter.fallback != nullptr) {
      PALIMPSEST_ASSIGN_OR_RETURN(value, Evaluate(*parameter.fallback, scope));
    }
    scope.variables[parameter.name] = std::move(value);
  }
  return Capture(macro.body, &scope);
}

absl::StatusOr<Value> Interpreter::CallBuiltin(Builtin builtin, const Arguments& arguments) {
  switch (builtin) {
    case Builtin::kRange:
      return MakeRange(arguments, &budget_);
    case Builtin::kNamespace:
      return MakeNamespace(arguments);
    case Builtin::kDict:
      return MakeDict(arguments);
    case Builtin::kStrftimeNow:
      return FormatTime(arguments, now_, &budget_);
    case Builtin::kRaiseException:
      break;
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const auto bound, Bind("raise_exception", arguments, {"message"}, 1));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string message, TextArgument(bound[0], "the message", ""));
  return InvalidArgument("the template refuses these messages: {}", message);
}

// dict(), dict(another), dict(name=value, ...)
absl::StatusOr<Value> Interpreter::MakeDict(const Arguments& arguments) {
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1) return InvalidArgument("dict takes at most one dict");
  if (!arguments.positional.empty()) {
    if (!arguments.positional[0].Is<DictPtr>()) {
      return InvalidArgument("dict of {} is not supported", TypeName(arguments.positional[0]));
    }
    *dict = *arguments.positional[0].As<DictPtr>();
    PALIMPSEST_RETURN_IF_ERROR(budget_.Elements(2 * static_cast<int64_t>(dict->entries.size())));
  }
  for (const auto& [name, value] : arguments.named) {
    PALIMPSEST_RETURN_IF_ERROR(SetEntry(dict.get(), Value(name), value, &budget_));
  }
  return Value(std::move(dict));
}

absl::StatusOr<Value> Interpreter::MakeNamespace(const Arguments& arguments) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Value attributes, MakeDict(arguments));
  Namespace* created = namespaces_.emplace_back(std::make_unique<Namespace>()).get();
  for (const auto& [name, value] : attributes.As<DictPtr>()->entries) {
    if (!name.IsText()) return InvalidArgument("a namespace's attributes are named by strings");
    created->attributes[name.text()] = value;
  }
  return Value(created);
}

}  // namespace palimpsest::jinja
