// palimpsest inspect: what the model makes of exactly this text or these tokens.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <memory>

#include "apps/input_files.h"
#include "apps/inspect_html.h"
#include "apps/model.h"
#include "apps/output_file.h"
#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "proto/base/json.h"
#include "proto/base/policy_spec.h"
#include "proto/base/progress.h"
#include "proto/base/quote.h"
#include "proto/base/recall_spec.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kTop = 10;
constexpr int64_t kIdsBytesMax = 64 << 20;

struct Flags {
  std::string prompt_file, token_ids, recall = "none", html;
  std::vector<std::string> policies;
  int64_t generate = 0;
  int64_t audit = 0;  // last tokens whose attention is looked at
};

absl::StatusOr<std::vector<int32_t>> ReadIds(const Flags& flags, const Model& model,
                                             const CommandContext& context) {
  if (!flags.token_ids.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string text,
                                ReadInput(flags.token_ids, kIdsBytesMax, *context.cancel));
    return ParseTokenIds(text, flags.token_ids);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(
      const std::string text,
      ReadInput(flags.prompt_file, context.config.limits.document_bytes, *context.cancel));
  if (text.empty()) return InvalidArgument("prompt file {} is empty", Quoted(flags.prompt_file, 1024));
  auto ids = model.tokenizer()->Encode(text, Tokenizer::Special::kParse);
  if (ids.ok()) return ids;
  return Error(ids.status().code(), "prompt file {}: {}", Quoted(flags.prompt_file, 1024),
               Message(ids.status()));
}

absl::Status CheckFlags(const Flags& flags) {
  if (flags.policies.size() > 2) {
    return UsageError(InvalidArgument(
        "palimpsest inspect: --policy {} times: it shows one, or two side by side", flags.policies.size()));
  }
  if (flags.prompt_file.empty() == flags.token_ids.empty()) {
    return UsageError(InvalidArgument("palimpsest inspect: give --prompt-file FILE or --token-ids FILE"));
  }
  const absl::StatusOr<RecallSpec> recall = ParseRecall(flags.recall);
  if (!recall.ok()) return UsageError(recall.status());
  if (recall->kind == RecallSpec::Kind::kAuto) {
    return UsageError(
        InvalidArgument("palimpsest inspect: --recall auto: an audit measures one: slices:..., all or none"));
  }
  if (flags.audit == 0 && flags.recall != "none") {
    return UsageError(InvalidArgument(
        "palimpsest inspect: --recall says what an audit measures: give --audit N, or leave it out"));
  }
  if (flags.audit > 0 && flags.generate > 0) {
    return UsageError(InvalidArgument(
        "palimpsest inspect: --audit {} looks at the last tokens of the text, --generate {} goes on behind "
        "them: give one of them",
        flags.audit, flags.generate));
  }
  return flags.html.empty() ? absl::OkStatus() : CheckOutputFile(flags.html);
}

// Of exactly this text there is no question, so nobody could see one.
absl::StatusOr<PolicySpec> ReadPolicy(const std::string& text) {
  absl::StatusOr<PolicySpec> policy = ParsePolicy(text);
  if (!policy.ok()) {
    const bool later = policy.status().code() == absl::StatusCode::kUnimplemented;
    return later ? policy.status() : UsageError(policy.status());
  }
  if (policy->kind == PolicySpec::Kind::kAuto) policy->kind = PolicySpec::Kind::kFull;
  if (policy->kind == PolicySpec::Kind::kInfiniPot && policy->catalyst == PolicySpec::Catalyst::kQuestion) {
    return UsageError(
        InvalidArgument("policy infinipot: catalyst=question needs a question, and inspect has none; "
                        "give catalyst=@FILE or catalyst_ids"));
  }
  return policy;
}

// Its ids, or the file's text or the default one as a planner makes them into tokens.
absl::StatusOr<std::vector<int32_t>> CatalystOf(const PolicySpec& policy, const Model& model,
                                                const CommandContext& context) {
  if (!policy.runs_catalyst()) return std::vector<int32_t>();
  if (policy.catalyst == PolicySpec::Catalyst::kIds) return policy.catalyst_ids;
  std::string text;
  if (policy.catalyst == PolicySpec::Catalyst::kFile) {
    PALIMPSEST_ASSIGN_OR_RETURN(
        text, ReadInput(policy.catalyst_file, context.config.limits.question_bytes, *context.cancel));
  }
  const absl::StatusOr<PromptPlanner> planner = model.MakePlanner();
  if (planner.status().code() == absl::StatusCode::kFailedPrecondition) {
    return FailedPrecondition(
        "policy {}: its catalyst ends as questions do, and model {} has no chat template; {}", policy.name(),
        Quoted(model.file().path(), 1024),
        policy.kind == PolicySpec::Kind::kInfiniPot && !policy.repeats() ? "give catalyst_ids"
                                                                         : "take another policy");
  }
  PALIMPSEST_RETURN_IF_ERROR(planner.status());
  return planner->TextCatalyst(policy, text);
}

// The last tokens are run one by one behind the rest, with all of it there.
absl::Status AddAudit(const Flags& flags, Request* request) {
  std::vector<int32_t> tokens = request->segments.front().tokens;
  const int64_t count = static_cast<int64_t>(tokens.size());
  if (flags.audit >= count) {
    return InvalidArgument("--audit {}: of {} tokens at most {} can be looked at, the rest is what they see",
                           flags.audit, count, count - 1);
  }
  if (request->prefill == PrefillMode::kPot || !request->policy.compresses() ||
      request->policy.kind == PolicySpec::Kind::kStreaming) {
    return InvalidArgument(
        "--audit {} with policy {}: it is for policies that choose among the tokens of a text that was read "
        "as "
        "one, such as snapkv",
        flags.audit, request->policy.name());
  }
  if (request->policy.merge != PolicySpec::Merge::kNone) {
    return InvalidArgument(
        "--audit {} with policy {}: its tokens hold what was merged into them, which an audit of tokens does "
        "not see; use merge=none",
        flags.audit, request->policy.name());
  }
  const auto first = tokens.end() - flags.audit;
  request->generated.assign(first + 1, tokens.end());
  Segment question{.tokens = {*first}, .role = Segment::Role::kQuestion};
  tokens.erase(first, tokens.end());
  request->segments.front().tokens = std::move(tokens);
  request->segments.push_back(std::move(question));
  request->recall = {.kind = RecallSpec::Kind::kAll};
  request->audit = *ParseRecall(flags.recall);  // CheckFlags read it
  request->sampling = GreedySampling(flags.audit);
  request->ignore_end = true;
  request->top = 0;
  return CheckPolicyFits(request->policy, count - flags.audit, 0, /*fixed=*/0);
}

absl::StatusOr<Request> MakeRequest(const Flags& flags, const PolicySpec& policy,
                                    const std::vector<int32_t>& ids, const Model& model,
                                    const CommandContext& context) {
  Request request;
  request.policy = policy;
  // Blocks of what a policy drops are written below before, so they are named.
  request.segments = {{.tokens = ids, .shared = policy.compresses()}};
  if (policy.kind == PolicySpec::Kind::kInfiniPot) request.prefill = PrefillMode::kPot;
  PALIMPSEST_ASSIGN_OR_RETURN(request.catalyst, CatalystOf(policy, model, context));
  PALIMPSEST_RETURN_IF_ERROR(CheckPolicyFits(policy, static_cast<int64_t>(ids.size()),
                                             static_cast<int64_t>(request.catalyst.size()), /*fixed=*/0));
  request.trace = true;
  request.top = kTop;
  request.sampling = GreedySampling(flags.generate);
  request.cancel = context.cancel;
  if (flags.audit > 0) PALIMPSEST_RETURN_IF_ERROR(AddAudit(flags, &request));
  return request;
}

// Runs it and says how far it is.
absl::StatusOr<Outcome> Prefill(Engine& engine, Request request) {
  Progress progress("prefill", "tokens", static_cast<int64_t>(request.segments.front().tokens.size()),
                    StderrProgress());
  request.on_prefill = [&](int64_t done, int64_t total) {
    progress.Add(done - progress.done());
    if (done == total) progress.Done();
  };
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine.Run(std::move(request)));
  if (outcome.status.code() == absl::StatusCode::kCancelled) return absl::CancelledError("interrupted");
  PALIMPSEST_RETURN_IF_ERROR(outcome.status);
  return outcome;
}

// For a shell.
std::string Word(const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./:=,%@+").find(c) != std::string_view::npos;
  });
  if (plain && !text.empty()) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string CommandText(const Flags& flags, const CommandContext& context) {
  std::string text = "palimpsest inspect";
  const auto add = [&](std::string_view flag, const std::string& value) {
    text += fmt::format(" {} {}", flag, Word(value));
  };
  if (!flags.prompt_file.empty()) add("--prompt-file", flags.prompt_file);
  if (!flags.token_ids.empty()) add("--token-ids", flags.token_ids);
  for (const std::string& policy : flags.policies) add("--policy", policy);
  if (flags.generate > 0) add("--generate", std::to_string(flags.generate));
  if (flags.audit > 0) add("--audit", std::to_string(flags.audit));
  if (flags.recall != "none") add("--recall", flags.recall);
  if (!context.config.model.empty()) add("--model", context.config.model);
  add("--html", flags.html);
  return text;
}

absl::Status WritePage(const Flags& flags, std::span<const Inspection> inspections, const Model& model,
                       const CommandContext& context) {
  const InspectPage about{.model = std::filesystem::path(model.file().path()).stem().string(),
                          .command = CommandText(flags, context),
                          .layers = model.config().layers,
                          .kv_heads = model.config().kv_heads};
  return WriteOutputFile(flags.html, InspectionHtml(inspections, about, *model.tokenizer()));
}

// What one policy makes of the text.
absl::StatusOr<Inspection> Inspect(const Flags& flags, std::vector<int32_t> ids, const PolicySpec& policy,
                                   Request request, Engine& engine) {
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, Prefill(engine, std::move(request)));
  Inspection inspection;
  inspection.ids = std::move(ids);
  inspection.top = std::move(outcome.top);
  inspection.generated = std::move(outcome.tokens);
  inspection.kept = std::move(outcome.kept);
  inspection.cycles = std::move(outcome.cycles);
  inspection.audit = std::move(outcome.audit);
  inspection.recall = flags.recall;
  if (inspection.audit.has_value()) inspection.generated.clear();  // they are the text's own
  inspection.resident_tokens = outcome.receipt.resident_tokens();
  if (policy.compresses()) inspection.policy = PolicyText(policy);
  return inspection;
}

// What can be told without the weights comes first, of both policies.
absl::Status Run(Flags flags, const CommandContext& context) {
  if (flags.policies.empty()) flags.policies = {"full"};
  PALIMPSEST_RETURN_IF_ERROR(CheckFlags(flags));
  std::vector<PolicySpec> policies;
  for (const std::string& text : flags.policies) {
    PALIMPSEST_ASSIGN_OR_RETURN(policies.emplace_back(), ReadPolicy(text));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ReadIds(flags, *model, context));
  const int64_t tokens = static_cast<int64_t>(ids.size()) + flags.generate;
  if (!flags.html.empty() && tokens > kPageTokensMax) {
    return InvalidArgument("--html: {} tokens, a page for a browser takes {} at most; leave it out", tokens,
                           kPageTokensMax);
  }
  std::vector<Request> requests;
  for (const PolicySpec& policy : policies) {
    PALIMPSEST_ASSIGN_OR_RETURN(requests.emplace_back(), MakeRequest(flags, policy, ids, *model, context));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model->StartEngine());
  std::vector<Inspection> inspections;
  for (size_t i = 0; i < policies.size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(inspections.emplace_back(),
                                Inspect(flags, ids, policies[i], std::move(requests[i]), *engine));
  }
  if (!flags.html.empty()) PALIMPSEST_RETURN_IF_ERROR(WritePage(flags, inspections, *model, context));
  return WriteOut(context.json ? InspectionJson(inspections) + "\n"
                               : InspectionText(inspections, *model->tokenizer()));
}

}  // namespace

void AddInspectCommand(CommandSet& commands) {
  const auto flags = std::make_shared<Flags>();
  CLI::App& inspect =
      commands.Add("inspect", "runs exactly this text or these tokens and shows the likeliest next ones",
                   Generation::kNo, [flags](const CommandContext& context) { return Run(*flags, context); });
  CLI::Option* const text =
      inspect
          .add_option("--prompt-file", flags->prompt_file,
                      "text as the model sees it: no template, special tokens are parsed")
          ->type_name("FILE");
  inspect.add_option("--token-ids", flags->token_ids, "a JSON array of token ids")
      ->type_name("FILE")
      ->excludes(text);
  inspect
      .add_option("--policy", flags->policies,
                  "which tokens stay: full (all), snapkv, infinipot or another of docs/policies.md; "
                  "twice: two, side by side; default full")
      ->type_name("NAME:key=value,...")
      ->allow_extra_args(false);
  inspect
      .add_option("--generate", flags->generate,
                  "likeliest tokens to go on with, up to an end token; default 0")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  inspect
      .add_option(
          "--audit", flags->audit,
          "the last N tokens are run one by one behind the rest: how much of their attention falls on "
          "what the policy keeps, and how far its output is off without the rest; default 0")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 16));
  inspect
      .add_option("--recall", flags->recall,
                  "of an audit: what comes back is seen too: none, or slices:...; default none")
      ->type_name("NAME:key=value,...")
      ->take_last();
  inspect
      .add_option("--html", flags->html,
                  "also writes a page for a browser: kept tokens over the text, by layer and head")
      ->type_name("OUT");
}

}  // namespace palimpsest
