// palimpsest inspect: what the model makes of exactly this text or these tokens.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "apps/input_files.h"
#include "apps/model.h"
#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "proto/base/json.h"
#include "proto/base/policy_spec.h"
#include "proto/base/progress.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kTop = 10;
constexpr int64_t kIdsBytesMax = 64 << 20;

struct Flags {
  std::string prompt_file, token_ids, policy = "full", html;
  int64_t generate = 0;
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
  if (flags.prompt_file.empty() == flags.token_ids.empty()) {
    return UsageError(InvalidArgument("palimpsest inspect: give --prompt-file FILE or --token-ids FILE"));
  }
  const absl::StatusOr<PolicySpec> policy = ParsePolicy(flags.policy);
  if (policy.status().code() == absl::StatusCode::kUnimplemented) return policy.status();
  PALIMPSEST_RETURN_IF_ERROR(UsageError(policy.status()));
  if (policy->compresses()) {
    return Unimplemented("policy {} is not there yet; full works today", policy->name());
  }
  if (!flags.html.empty()) {
    return Unimplemented(
        "--html draws which tokens a policy kept; full keeps all, and others are not there yet");
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  PALIMPSEST_RETURN_IF_ERROR(CheckFlags(flags));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  Inspection inspection;
  PALIMPSEST_ASSIGN_OR_RETURN(inspection.ids, ReadIds(flags, *model, context));
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model->StartEngine());
  Request request;
  request.segments = {{.tokens = inspection.ids}};
  request.top = kTop;
  request.sampling = GreedySampling(flags.generate);
  request.cancel = context.cancel;
  Progress progress("prefill", "tokens", static_cast<int64_t>(inspection.ids.size()), StderrProgress());
  request.on_prefill = [&](int64_t done, int64_t total) {
    progress.Add(done - progress.done());
    if (done == total) progress.Done();
  };
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine->Run(std::move(request)));
  if (outcome.status.code() == absl::StatusCode::kCancelled) return absl::CancelledError("interrupted");
  PALIMPSEST_RETURN_IF_ERROR(outcome.status);
  inspection.top = std::move(outcome.top);
  inspection.generated = std::move(outcome.tokens);
  return WriteOut(context.json ? InspectionJson(inspection) + "\n"
                               : InspectionText(inspection, *model->tokenizer()));
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
  inspect.add_option("--policy", flags->policy, "full; default full")
      ->type_name("NAME:key=value,...")
      ->take_last();
  inspect
      .add_option("--generate", flags->generate,
                  "likeliest tokens to go on with, up to an end token; default 0")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  inspect.add_option("--html", flags->html, "draws kept tokens over the text")->type_name("OUT");
}

}  // namespace palimpsest
