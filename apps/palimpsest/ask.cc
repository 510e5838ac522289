// palimpsest ask: the answer as it comes on stdout, then its receipt on stderr; or both as JSON.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "apps/client.h"
#include "apps/input_files.h"
#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "proto/base/policy_spec.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

struct Flags {
  std::vector<std::string> documents;
  std::string prefill = "auto", policy = "auto", recall = "auto", visibility = "hidden";
  std::vector<std::string> stop;
  std::string question;
};

// A typing mistake is wrong usage; what is right but not there yet fails.
absl::Status UsageUnlessUnimplemented(absl::Status status) {
  return status.code() == absl::StatusCode::kUnimplemented ? status : UsageError(std::move(status));
}

absl::Status CheckStop(const std::vector<std::string>& stop, const Config::Limits& limits) {
  if (static_cast<int64_t>(stop.size()) > limits.stop_strings) {
    return InvalidArgument("{} --stop strings, limits.stop_strings allows {}", stop.size(),
                           limits.stop_strings);
  }
  for (const std::string& one : stop) {
    if (one.empty() || static_cast<int64_t>(one.size()) > limits.stop_bytes) {
      return InvalidArgument("a --stop string of {} bytes, limits.stop_bytes allows 1 to {}", one.size(),
                             limits.stop_bytes);
    }
    if (!CheckUtf8(one).ok()) return InvalidArgument("a --stop string is not UTF-8");
  }
  return absl::OkStatus();
}

absl::StatusOr<PromptOptions> MakeOptions(const Flags& flags, const CommandContext& context) {
  PromptOptions options;
  const absl::StatusOr<PrefillChoice> prefill = ParsePrefill(flags.prefill);
  PALIMPSEST_RETURN_IF_ERROR(UsageError(prefill.status()));
  options.prefill = *prefill;
  absl::StatusOr<PolicySpec> policy = ParsePolicy(flags.policy);
  PALIMPSEST_RETURN_IF_ERROR(UsageUnlessUnimplemented(policy.status()));
  options.policy = std::move(*policy);
  const absl::StatusOr<bool> visible = ParseQuestionVisible(flags.visibility);
  PALIMPSEST_RETURN_IF_ERROR(UsageError(visible.status()));
  options.question_visible = *visible;
  const absl::StatusOr<RecallSpec> recall = ParseRecall(flags.recall);
  PALIMPSEST_RETURN_IF_ERROR(UsageUnlessUnimplemented(recall.status()));
  options.recall = *recall;
  if (options.policy.catalyst == PolicySpec::Catalyst::kFile) {
    PALIMPSEST_ASSIGN_OR_RETURN(
        options.catalyst,
        ReadInput(options.policy.catalyst_file, context.config.limits.question_bytes, *context.cancel));
  }
  return options;
}

absl::StatusOr<Question> MakeQuestion(const Flags& flags, const CommandContext& context) {
  Question question;
  PALIMPSEST_ASSIGN_OR_RETURN(question.options, MakeOptions(flags, context));
  PALIMPSEST_RETURN_IF_ERROR(UsageError(CheckStop(flags.stop, context.config.limits)));
  question.documents = flags.documents;
  std::string text = flags.question;
  if (flags.question == kStdin) {
    PALIMPSEST_ASSIGN_OR_RETURN(
        text, ReadInput(flags.question, context.config.limits.question_bytes, *context.cancel));
  }
  question.messages = {{.role = "user", .content = std::move(text)}};
  const Config::Generate& generate = context.config.generate;
  question.sampling.set_max_tokens(generate.max_tokens);
  question.sampling.set_temperature(generate.temperature);
  question.sampling.set_top_k(generate.top_k);
  question.sampling.set_top_p(generate.top_p);
  question.sampling.set_min_p(generate.min_p);
  question.sampling.set_repetition_penalty(generate.repetition_penalty);
  question.sampling.set_seed(static_cast<uint64_t>(generate.seed));
  for (const std::string& stop : flags.stop) question.sampling.add_stop(stop);
  return question;
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(Question question, MakeQuestion(flags, context));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                              OpenClient(context.config, ClientOptionsOf(context)));
  if (context.json) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Answer answer, client->Ask(question));
    return WriteOut(AnswerJson(answer) + "\n");
  }
  absl::Status written;
  bool begun = false;
  question.on_text = [&](std::string_view text) {
    begun = true;
    written.Update(WriteOut(text));
  };
  const absl::StatusOr<Answer> answer = client->Ask(question);
  if (begun) written.Update(WriteOut("\n"));  // also after what an interrupted answer left
  PALIMPSEST_RETURN_IF_ERROR(answer.status());
  PALIMPSEST_RETURN_IF_ERROR(written);
  std::fputs(ReceiptText(*answer).c_str(), stderr);
  return absl::OkStatus();
}

absl::Status RunOrSayWhatStays(const Flags& flags, const CommandContext& context) {
  absl::Status status = Run(flags, context);
  if (status.code() != absl::StatusCode::kCancelled) return status;
  return Error(absl::StatusCode::kCancelled,
               "interrupted; documents that were read are kept, ask again to go on");
}

}  // namespace

void AddAskCommand(CommandSet& commands) {
  const auto flags = std::make_shared<Flags>();
  CLI::App& ask =
      commands.Add("ask", "answers a question about documents, or about none", Generation::kYes,
                   [flags](const CommandContext& context) { return RunOrSayWhatStays(*flags, context); });
  commands.TakesServer(ask);
  ask.add_option("--document", flags->documents,
                 "what the question is about; give it again for more. A file is ingested first")
      ->type_name("ID|PATH")
      ->allow_extra_args(false);
  ask.add_option("--prefill", flags->prefill,
                 "how the prompt is read: auto, exact (as one text), anchored (documents span by span) or "
                 "pot; default auto")
      ->type_name("MODE")
      ->take_last();
  ask.add_option("--policy", flags->policy,
                 "which tokens stay on the device: auto, full (all), snapkv, infinipot or another of "
                 "docs/policies.md; default auto")
      ->type_name("NAME:key=value,...")
      ->take_last();
  ask.add_option("--recall", flags->recall,
                 "how dropped tokens come back: auto, none, all, or "
                 "slices:budget=1024,slice=16,refresh=1,words=256,whole=8192,index=q2; default auto: slices "
                 "where the policy drops parts of documents")
      ->type_name("NAME:key=value,...")
      ->take_last();
  ask.add_option("--question", flags->visibility,
                 "may the policy see the question: hidden or visible; default hidden")
      ->type_name("WHICH")
      ->take_last();
  ask.add_option("--stop", flags->stop, "text that ends the answer; give it again for more")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  ask.add_option("QUESTION", flags->question, "the question, in quotes; - reads it from standard input")
      ->required()
      ->type_name("");
}

}  // namespace palimpsest
