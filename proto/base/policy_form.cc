#include "proto/base/policy_form.h"

#include <algorithm>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

absl::Status AddParameter(std::string_view kind, std::string_view text, FormText* form) {
  const size_t equals = text.find('=');
  const std::string& name = form->form->name;
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size()) {
    return InvalidArgument("{} {}: expected key=value, not {}", kind, name, Quoted(text));
  }
  const FormParameter parameter{text.substr(0, equals), text.substr(equals + 1)};
  const std::vector<std::string>& keys = form->form->keys;
  if (keys.empty()) {
    return InvalidArgument("{} {} takes no parameters, not {}", kind, name, Quoted(parameter.key));
  }
  if (std::find(keys.begin(), keys.end(), parameter.key) == keys.end()) {
    const std::string hint = DidYouMean(parameter.key, keys);
    return InvalidArgument("{} {} has no key {}{}", kind, name, Quoted(parameter.key),
                           hint.empty() ? "; it has " + ListOf(keys) : hint);
  }
  for (const FormParameter& other : form->parameters) {
    if (other.key == parameter.key) return InvalidArgument("{} {}: {} twice", kind, name, parameter.key);
  }
  form->parameters.push_back(parameter);
  return absl::OkStatus();
}

}  // namespace

std::string ListOf(std::span<const std::string> words, std::string_view last) {
  if (words.size() < 2) return words.empty() ? "" : words[0];
  return fmt::format("{} {} {}", fmt::join(words.begin(), words.end() - 1, ", "), last, words.back());
}

absl::StatusOr<const NamedForm*> FindForm(std::string_view what, std::span<const NamedForm> forms,
                                          std::string_view name) {
  std::vector<std::string> names;
  for (const NamedForm& form : forms) {
    if (form.name == name) return &form;
    names.push_back(form.name);
  }
  const std::string hint = DidYouMean(name, names);
  return InvalidArgument("unknown {} {}{}", what, Quoted(name),
                         hint.empty() ? "; there are " + ListOf(names) : hint);
}

absl::StatusOr<FormText> ReadForm(std::string_view kind, std::span<const NamedForm> forms,
                                  std::string_view text) {
  const size_t colon = text.find(':');
  FormText read;
  PALIMPSEST_ASSIGN_OR_RETURN(read.form, FindForm(kind, forms, text.substr(0, colon)));
  for (size_t begin = colon; begin != std::string_view::npos;) {
    const size_t end = text.find(',', begin + 1);
    const size_t length = end == std::string_view::npos ? end : end - begin - 1;
    PALIMPSEST_RETURN_IF_ERROR(AddParameter(kind, text.substr(begin + 1, length), &read));
    begin = end;
  }
  return read;
}

}  // namespace palimpsest
