#include "coordinator/policy_text.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

struct Form {
  std::string name;
  std::vector<std::string> keys;
};

const std::vector<Form>& Policies() {
  static const auto* const forms = new std::vector<Form>{
      {"full", {}},
      {"snapkv", {"budget", "window", "kernel", "pool", "reduce", "order", "divisor"}},
      {"infinipot", {"pot", "keep", "alpha", "score", "catalyst", "catalyst_ids"}},
      {"lookm", {"budget", "recent", "merge", "text_prior"}},
      {"streaming", {"sink", "recent"}},
      {"h2o", {"heavy", "recent"}},
      {"tova", {"budget"}},
      {"sirllm", {"sink", "budget", "recent"}},
      {"roco", {"budget"}},
      {"pyramidkv", {"budget"}},
      {"adakv", {"budget"}},
      {"kvzip", {"budget"}},
      {"knorm", {"budget"}},
      {"keydiff", {"budget"}},
      {"expected", {"budget"}},
      {"chunkkv", {"budget", "chunk"}},
      {"random", {"budget", "seed"}},
  };
  return *forms;
}

const std::vector<Form>& Recalls() {
  static const auto* const forms =
      new std::vector<Form>{{"none", {}}, {"slices", {"budget", "slice", "refresh", "index"}}, {"all", {}}};
  return *forms;
}

absl::Status CheckParameter(std::string_view kind, const Form& form, std::string_view parameter) {
  const size_t equals = parameter.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == parameter.size()) {
    return InvalidArgument("{} {}: expected key=value, not {}", kind, form.name, Quoted(parameter));
  }
  const std::string_view key = parameter.substr(0, equals);
  if (std::find(form.keys.begin(), form.keys.end(), key) != form.keys.end()) return absl::OkStatus();
  return InvalidArgument("{} {} has no key {}{}", kind, form.name, Quoted(key), DidYouMean(key, form.keys));
}

absl::Status CheckForm(std::string_view kind, const std::vector<Form>& forms, std::string_view text,
                       std::string_view today) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  std::vector<std::string> names;
  for (const Form& form : forms) names.push_back(form.name);
  const auto form = std::find_if(forms.begin(), forms.end(), [&](const Form& f) { return f.name == name; });
  if (form == forms.end()) {
    const std::string hint = DidYouMean(name, names);
    return InvalidArgument("unknown {} {}{}", kind, Quoted(name),
                           hint.empty() ? fmt::format("; there are {}", fmt::join(names, ", ")) : hint);
  }
  for (size_t begin = colon; begin != std::string_view::npos && begin < text.size();) {
    const size_t end = text.find(',', begin + 1);
    PALIMPSEST_RETURN_IF_ERROR(CheckParameter(
        kind, *form, text.substr(begin + 1, end == std::string_view::npos ? end : end - begin - 1)));
    begin = end;
  }
  if (name == today) return absl::OkStatus();
  return Unimplemented("{} {} is not there yet; {} works today", kind, name, today);
}

}  // namespace

absl::Status CheckPolicy(std::string_view text) { return CheckForm("policy", Policies(), text, "full"); }
absl::Status CheckRecall(std::string_view text) { return CheckForm("recall", Recalls(), text, "none"); }

}  // namespace palimpsest
