#include "proto/base/policy_spec.h"

#include <charconv>
#include <limits>
#include <span>

#include "proto/base/policy_form.h"
#include "proto/base/policy_names.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

using namespace policy_names;
using Kind = PolicySpec::Kind;

constexpr int64_t kTokensMax = int64_t{1} << 30;
// The last queries of every layer are kept until the end of the prompt: of an 8B model 512 KiB for each token
// of the window. Papers use 8 to 64.
constexpr int64_t kWindowMax = 1024;
constexpr int64_t kKernelMax = 255;  // papers: 5 to 63
constexpr size_t kCatalystIdsMax = 4096;
constexpr size_t kImagesMax = 256;
constexpr size_t kFileBytesMax = 4096;
// The queries of a part that is repeated are kept until it is scored: of an 8B model 512 KiB for each token.
constexpr int64_t kRepeatTokensMax = 8192;
constexpr int64_t kFutureMax = 65536;
constexpr int64_t kResidualStep = 64, kResidualMax = 65536;  // published: 32 to 128
constexpr int64_t kBetaMax = 1000000;

// What the score of SnapKV is made of, and what a policy that builds on it adds.
std::vector<std::string> SnapKeys(std::vector<std::string> more = {}) {
  std::vector<std::string> keys = {"budget", "window", "kernel",  "pool",
                                   "reduce", "order",  "divisor", "merge"};
  keys.insert(keys.end(), more.begin(), more.end());
  return keys;
}

// How what stays is written, of every policy that leaves it where it stands.
std::vector<NamedForm> WithResident(std::vector<NamedForm> forms) {
  for (NamedForm& form : forms) {
    if (form.name == "auto" || form.name == "infinipot" || form.name == "streaming") continue;
    form.keys.insert(form.keys.end(), {"kv", "residual"});
  }
  return forms;
}

// The first rows in the order of Kind.
std::span<const NamedForm> Policies() {
  static const auto* const forms = new std::vector<NamedForm>{
      {"auto", {}},
      {"full", {}},
      {"snapkv", SnapKeys({"target"})},
      {"infinipot", {"pot", "keep", "alpha", "score", "reduce", "catalyst", "catalyst_ids"}},
      {"streaming", {"sink", "recent"}},
      {"random", {"budget", "seed", "merge"}},
      {"h2o", {"heavy", "recent", "normalize", "reduce", "decode", "merge"}},
      {"lookm", {"budget", "recent", "text_prior", "images", "merge"}},
      {"tova", {"budget", "last", "decode", "merge"}},
      {"roco", {"budget", "volatile", "sink", "recent", "decode", "merge"}},
      {"knorm", {"budget", "merge"}},
      {"keydiff", {"budget", "keys", "merge"}},
      {"expected", {"budget", "sink", "future", "covariance", "values", "epsilon", "merge"}},
      {"sirllm", {"budget", "sink", "recent", "merge"}},
      {"pyramidkv", SnapKeys({"beta"})},
      {"adakv", SnapKeys({"floor", "share"})},
      {"chunkkv", SnapKeys({"chunk"})},
      {"criticalkv", SnapKeys({"first", "epsilon"})},
      {"kvzip", {"budget", "chunk", "attend", "merge"}},
  };
  static const auto* const all = new std::vector<NamedForm>(WithResident(*forms));
  return *all;
}

// One key=value of a policy, read by type. Every error names the policy, the key, what was typed and what is
// allowed.
class Parameter {
 public:
  Parameter(const std::string& policy, const FormParameter& parameter)
      : policy_(policy), key_(parameter.key), value_(parameter.value) {}
  std::string_view key() const { return key_; }
  std::string_view value() const { return value_; }

  absl::Status IsNot(std::string_view allowed) const {
    return InvalidArgument("policy {}: {}={} is not {}", policy_, key_, Quoted(value_), allowed);
  }

  absl::Status Read(Amount* amount) const {
    const bool percent = value_.back() == '%';
    const auto number = percent ? ParseInteger(value_.substr(0, value_.size() - 1)) : ParseCount(value_);
    if (!number.ok() || *number < 1 || *number > (percent ? 100 : kTokensMax)) {
      return IsNot(fmt::format("1 to {} tokens, such as 512 or 4K, or 1% to 100%", kTokensMax));
    }
    *amount = {*number, percent};
    return absl::OkStatus();
  }

  absl::Status Read(int64_t least, int64_t most, int64_t* number) const {
    const auto read = ParseCount(value_);
    if (!read.ok() || *read < least || *read > most) {
      return IsNot(fmt::format("a whole number from {} to {}", least, most));
    }
    *number = *read;
    return absl::OkStatus();
  }

  absl::Status Read(uint64_t* number) const {
    const char* const end = value_.data() + value_.size();
    const auto [stop, error] = std::from_chars(value_.data(), end, *number);
    if (error == std::errc() && stop == end) return absl::OkStatus();
    return IsNot(fmt::format("a whole number from 0 to {}", std::numeric_limits<uint64_t>::max()));
  }

  template <typename E>
  absl::Status Read(std::span<const std::string_view> names, E* choice) const {
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] != value_) continue;
      *choice = static_cast<E>(i);
      return absl::OkStatus();
    }
    const std::vector<std::string> words(names.begin(), names.end());
    return IsNot(ListOf(words, "or") + DidYouMean(value_, words));
  }

 private:
  std::string_view policy_, key_, value_;
};

absl::Status ReadIds(const Parameter& parameter, std::vector<int32_t>* ids) {
  const std::string_view text = parameter.value();
  const std::string allowed = fmt::format("1 to {} token ids from 0 to {} between slashes, such as 1/2/3",
                                          kCatalystIdsMax, std::numeric_limits<int32_t>::max());
  for (size_t begin = 0; begin != std::string_view::npos;) {
    const size_t slash = text.find('/', begin);
    const auto id = ParseInteger(text.substr(begin, slash == std::string_view::npos ? slash : slash - begin));
    if (!id.ok() || *id < 0 || *id > std::numeric_limits<int32_t>::max() || ids->size() == kCatalystIdsMax) {
      return parameter.IsNot(allowed);
    }
    ids->push_back(static_cast<int32_t>(*id));
    begin = slash == std::string_view::npos ? slash : slash + 1;
  }
  return absl::OkStatus();
}

// Ranges of tokens, ascending, of which none reaches into the next.
absl::Status ReadImages(const Parameter& parameter, std::vector<PolicySpec::Image>* images) {
  const std::string_view text = parameter.value();
  const std::string allowed = fmt::format(
      "1 to {} ranges FIRST-END of tokens from 0 to {} between slashes, END behind the last, ascending and "
      "apart, such as 0-576/600-1176",
      kImagesMax, kTokensMax);
  for (size_t begin = 0; begin != std::string_view::npos;) {
    const size_t slash = text.find('/', begin);
    const std::string_view range =
        text.substr(begin, slash == std::string_view::npos ? slash : slash - begin);
    const size_t dash = std::min(range.find('-'), range.size() - 1);
    const auto first = ParseInteger(range.substr(0, dash)), end = ParseInteger(range.substr(dash + 1));
    const int64_t least = images->empty() ? 0 : images->back().end;
    if (range.empty() || !first.ok() || !end.ok() || *first < least || *end <= *first || *end > kTokensMax ||
        images->size() == kImagesMax) {
      return parameter.IsNot(allowed);
    }
    images->push_back({*first, *end});
    begin = slash == std::string_view::npos ? slash : slash + 1;
  }
  return absl::OkStatus();
}

absl::Status ReadCatalyst(const Parameter& parameter, PolicySpec* policy) {
  if (policy->catalyst != PolicySpec::Catalyst::kDefault) {
    return InvalidArgument("policy infinipot: give catalyst or catalyst_ids, not both");
  }
  const std::string_view text = parameter.value();
  if (parameter.key() == "catalyst_ids") {
    policy->catalyst = PolicySpec::Catalyst::kIds;
    return ReadIds(parameter, &policy->catalyst_ids);
  }
  if (text == "default") return absl::OkStatus();
  if (text == "question") {
    policy->catalyst = PolicySpec::Catalyst::kQuestion;
    return absl::OkStatus();
  }
  if (text.front() != '@') {
    return parameter.IsNot("@FILE, question or default: a catalyst's text stands in a file");
  }
  policy->catalyst = PolicySpec::Catalyst::kFile;
  policy->catalyst_file = text.substr(1);
  if (policy->catalyst_file.empty() || policy->catalyst_file.size() > kFileBytesMax ||
      !IsPlainText(policy->catalyst_file)) {
    return parameter.IsNot(fmt::format("@ and a path of 1 to {} bytes of plain UTF-8", kFileBytesMax));
  }
  return absl::OkStatus();
}

absl::Status ReadScore(const Parameter& parameter, PolicySpec* policy) {
  policy->score = std::string(parameter.value());
  return policy->score == "cap" ? absl::OkStatus() : CheckDistiller(policy->score);
}

absl::Status ReadReal(const Parameter& parameter, double* number) {
  const auto read = ParseReal(parameter.value());
  if (!read.ok() || !(*read >= 0) || *read > 1) return parameter.IsNot("a number from 0 to 1");
  *number = *read + 0.0;  // no -0
  return absl::OkStatus();
}

absl::Status ReadParameter(const Parameter& parameter, PolicySpec* policy) {
  const std::string_view key = parameter.key();
  if (key == "budget") return parameter.Read(&policy->budget);
  if (key == "window") return parameter.Read(1, kWindowMax, &policy->window);
  if (key == "kernel") {
    const bool odd = parameter.Read(1, kKernelMax, &policy->kernel).ok() && policy->kernel % 2 == 1;
    return odd ? absl::OkStatus() : parameter.IsNot(fmt::format("an odd number from 1 to {}", kKernelMax));
  }
  if (key == "pool") return parameter.Read(kPools, &policy->pool);
  if (key == "reduce") {
    // Of a catalyst, the sum and the mean of the heads pick the same tokens: there is one name for it.
    const std::span<const std::string_view> names(kReduces);
    return parameter.Read(policy->kind == Kind::kInfiniPot ? names.first(2) : names, &policy->reduce);
  }
  if (key == "order") return parameter.Read(kOrders, &policy->order);
  if (key == "divisor") return parameter.Read(kDivisors, &policy->divisor);
  if (key == "pot") return parameter.Read(&policy->pot);
  if (key == "keep" && parameter.value() == "half") return absl::OkStatus();
  if (key == "keep") return parameter.Read(&policy->keep);
  if (key == "alpha") return ReadReal(parameter, &policy->alpha);
  if (key == "score") return ReadScore(parameter, policy);
  if (key == "catalyst" || key == "catalyst_ids") return ReadCatalyst(parameter, policy);
  if (key == "sink") return parameter.Read(0, kTokensMax, &policy->sink);
  if (key == "recent" && policy->kind == Kind::kSirLlm) {
    return parameter.Read(0, kTokensMax, &policy->recent.value);
  }
  if (key == "recent") return parameter.Read(&policy->recent);
  if (key == "keys") return parameter.Read(kKeys, &policy->keys);
  if (key == "future") return parameter.Read(1, kFutureMax, &policy->future);
  if (key == "covariance") return parameter.Read(kSwitch, &policy->covariance);
  if (key == "values") return parameter.Read(kSwitch, &policy->values);
  if (key == "epsilon") return ReadReal(parameter, &policy->epsilon);
  if (key == "beta") return parameter.Read(1, kBetaMax, &policy->beta);
  if (key == "floor") return ReadReal(parameter, &policy->floor);
  if (key == "share") return parameter.Read(kShares, &policy->share);
  if (key == "chunk" && policy->kind == Kind::kKvZip) {
    return parameter.Read(PolicySpec::kRepeatMin, kRepeatTokensMax, &policy->chunk);
  }
  if (key == "attend") return parameter.Read(kAttends, &policy->attend);
  if (key == "chunk") return parameter.Read(1, kTokensMax, &policy->chunk);
  if (key == "first") return ReadReal(parameter, &policy->first);
  if (key == "target") {
    const bool read = ReadReal(parameter, &policy->target).ok() && policy->target > 0 && policy->target < 1;
    return read ? absl::OkStatus() : parameter.IsNot("a number between 0 and 1");
  }
  if (key == "seed") return parameter.Read(&policy->seed);
  if (key == "heavy") return parameter.Read(&policy->heavy);
  if (key == "normalize") return parameter.Read(kNormalizes, &policy->normalize);
  if (key == "last") return parameter.Read(kLasts, &policy->last);
  if (key == "decode") return parameter.Read(kDecodes, &policy->decode);
  if (key == "volatile") return parameter.Read(&policy->volatile_tokens);
  if (key == "text_prior") return parameter.Read(kTextPriors, &policy->text_prior);
  if (key == "images") return ReadImages(parameter, &policy->images);
  if (key == "kv") return parameter.Read(kResidents, &policy->kv);
  if (key == "residual") {
    const bool whole = parameter.Read(kResidualStep, kResidualMax, &policy->residual).ok() &&
                       policy->residual % kResidualStep == 0;
    return whole ? absl::OkStatus()
                 : parameter.IsNot(
                       fmt::format("a multiple of {0} from {0} to {1}", kResidualStep, kResidualMax));
  }
  if (key == "merge") return parameter.Read(kMerges, &policy->merge);
  return Internal("policy {}: the key {} has no reader", policy->name(), key);
}

bool BuildsOnSnapKv(Kind kind) {
  return kind == Kind::kSnapKv || (kind >= Kind::kPyramidKv && kind <= Kind::kCriticalKv);
}

// What can be said of several parameters together before any text is known.
absl::Status CheckTogether(const PolicySpec& policy, std::span<const FormParameter> parameters) {
  if (BuildsOnSnapKv(policy.kind) && !policy.budget.percent && policy.budget.value <= policy.window) {
    return InvalidArgument(
        "policy {}: budget={} leaves no room beside window={}, which stays: budget of {} to {}",
        policy.name(), policy.budget.value, policy.window, policy.window + 1, kTokensMax);
  }
  if (policy.kind == Kind::kLookM && policy.budget.percent == policy.recent.percent &&
      policy.budget.value <= policy.recent.value) {
    return InvalidArgument("policy lookm: budget={0}{2} leaves no room beside recent={1}{2}, which stays",
                           policy.budget.value, policy.recent.value, policy.budget.percent ? "%" : "");
  }
  if (policy.kind == Kind::kH2o && policy.heavy.percent && policy.recent.percent &&
      policy.heavy.value + policy.recent.value > 100) {
    return InvalidArgument("policy h2o: heavy={}% and recent={}% are {}% together, expected 2% to 100%",
                           policy.heavy.value, policy.recent.value, policy.heavy.value + policy.recent.value);
  }
  for (const FormParameter& parameter : parameters) {
    if (parameter.key == "residual" && policy.residual_tokens() == 0) {
      return InvalidArgument("policy {}: residual={} goes with kv=kivi2; kv=bf16 keeps all of it exact",
                             policy.name(), policy.residual);
    }
  }
  if (policy.evicts() && policy.merge != PolicySpec::Merge::kNone) {
    return InvalidArgument(
        "policy {}: decode=evict lets tokens go one by one, and merge={} joins all that go at once: give one "
        "of them",
        policy.name(), policy_names::NameOf(kMerges, policy.merge));
  }
  if (policy.evicts() && policy.residual_tokens() > 0) {
    return InvalidArgument(
        "policy {}: decode=evict puts the newest token where another was, and kv=kivi2 has others written in "
        "2 "
        "bits: give one of them",
        policy.name());
  }
  if (policy.kind != Kind::kInfiniPot) return absl::OkStatus();
  if (policy.pot.percent == policy.keep.percent && policy.keep.value >= policy.pot.value) {
    return InvalidArgument("policy infinipot: keep={0}{2} is not below pot={1}{2}, which it empties",
                           policy.keep.value, policy.pot.value, policy.pot.percent ? "%" : "");
  }
  for (const FormParameter& parameter : parameters) {
    const bool of_catalyst = parameter.key == "reduce" || parameter.key.starts_with("catalyst");
    if (of_catalyst && policy.score != "cap") {
      return InvalidArgument("policy infinipot: {} goes with score=cap; score={} takes no catalyst",
                             parameter.key, policy.score);
    }
  }
  return absl::OkStatus();
}

}  // namespace

PolicySpec PolicySpec::Of(Kind kind) {
  PolicySpec policy;
  policy.kind = kind;
  if (kind == Kind::kH2o || kind == Kind::kLookM) policy.recent = {10, true};
  if (kind == Kind::kLookM) policy.budget = {20, true};
  if (kind == Kind::kLookM) policy.merge = Merge::kPivotal;
  if (kind == Kind::kRoCo) policy.recent = {10};
  if (kind == Kind::kSirLlm) policy.recent = {0};
  if (kind == Kind::kChunkKv) policy.pool = Pool::kNone;  // a chunk keeps phrases whole itself
  if (kind == Kind::kCriticalKv) policy.epsilon = 1e-4;
  if (kind == Kind::kKvZip) {  // published: 2048, all
    policy.chunk = 128;
    policy.attend = Attend::kPart;
  }
  return policy;
}

absl::Status CheckDistiller(std::string_view name) {
  constexpr std::string_view kWhat = "policy infinipot: score";
  std::vector<NamedForm> scores = {{"cap", {}}};
  std::vector<std::string> allowed = {"cap"};
  std::string_view why;
  for (size_t i = 0; i < Policies().size(); ++i) {
    const NamedForm& form = Policies()[i];
    const bool scores_tokens = form.name != "auto" && form.name != "full" && form.name != "infinipot";
    if (scores_tokens) scores.push_back(form);
    if (scores_tokens) allowed.push_back(form.name);
    if (form.name == name && !scores_tokens) why = "picks no tokens by itself";
  }
  if (!why.empty()) return InvalidArgument("{}={} {}; allowed: {}", kWhat, name, why, ListOf(allowed));
  return FindForm(kWhat, scores, name).status();
}

std::string PolicySpec::name() const { return Policies()[static_cast<size_t>(kind)].name; }

absl::StatusOr<PolicySpec> ParsePolicy(std::string_view text) {
  PALIMPSEST_ASSIGN_OR_RETURN(const FormText form, ReadForm("policy", Policies(), text));
  PolicySpec policy = PolicySpec::Of(static_cast<Kind>(form.form - Policies().data()));
  for (const FormParameter& parameter : form.parameters) {
    PALIMPSEST_RETURN_IF_ERROR(ReadParameter(Parameter(form.form->name, parameter), &policy));
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckTogether(policy, form.parameters));
  return policy;
}

}  // namespace palimpsest
