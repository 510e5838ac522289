// The form NAME or NAME:key=value,key=value against a table of the names there are, before any value is read.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

struct NamedForm {
  std::string name;
  std::vector<std::string> keys;
};

struct FormParameter {
  std::string_view key, value;  // views of the text; neither is empty
};

struct FormText {
  const NamedForm* form;
  std::vector<FormParameter> parameters;  // as written, no key twice
};

// `kind` is what errors call it: policy, recall. Errors as of policy_spec.h.
absl::StatusOr<FormText> ReadForm(std::string_view kind, std::span<const NamedForm> forms,
                                  std::string_view text);

// `what` begins the error: "policy", "policy infinipot: score".
absl::StatusOr<const NamedForm*> FindForm(std::string_view what, std::span<const NamedForm> forms,
                                          std::string_view name);

// "a", "a and b", "a, b and c".
std::string ListOf(std::span<const std::string> words, std::string_view last = "and");

}  // namespace palimpsest
