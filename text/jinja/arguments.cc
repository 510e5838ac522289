#include "text/jinja/arguments.h"

#include <algorithm>

#include "proto/base/status.h"

namespace palimpsest::jinja {

absl::StatusOr<std::vector<const Value*>> Bind(std::string_view callee, const Arguments& arguments,
                                               std::initializer_list<std::string_view> parameters,
                                               size_t required) {
  if (arguments.positional.size() > parameters.size()) {
    return InvalidArgument("{} takes at most {} arguments, not {}", callee, parameters.size(),
                           arguments.positional.size());
  }
  std::vector<const Value*> bound(parameters.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end()) return InvalidArgument("{} has no argument '{}'", callee, name);
    const Value*& slot = bound[found - parameters.begin()];
    if (slot != nullptr) return InvalidArgument("{} is given '{}' twice", callee, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr)
      return InvalidArgument("{} needs the argument '{}'", callee, parameters.begin()[i]);
  }
  return bound;
}

absl::StatusOr<std::string> TextArgument(const Value* value, std::string_view what,
                                         std::string_view fallback) {
  if (value == nullptr) return std::string(fallback);
  if (value->IsUndefined()) return UndefinedError(*value);
  if (!value->IsText()) return InvalidArgument("{} must be a string, not {}", what, TypeName(*value));
  return value->text();
}

absl::StatusOr<int64_t> IntegerArgument(const Value* value, std::string_view what, int64_t fallback) {
  if (value == nullptr) return fallback;
  if (value->IsUndefined()) return UndefinedError(*value);
  if (!value->IsInteger()) return InvalidArgument("{} must be an integer, not {}", what, TypeName(*value));
  return value->integer();
}

}  // namespace palimpsest::jinja
