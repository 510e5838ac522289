#include "apps/palimpsest/niah_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <filesystem>
#include <set>

#include "apps/input_files.h"
#include "proto/base/ids.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 30;

// A text file, a folder of them, or standard input.
absl::StatusOr<std::string> ReadTexts(const std::string& path, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<std::string> files, ExpandFolders({path}));
  std::string all;
  for (const std::string& file : files) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ReadInput(file, kFileBytesMax, *context.cancel));
    all += text;
    all += '\n';
  }
  return all;
}

absl::Status AddSizes(const NiahSampleFlags& flags, NiahOptions* options) {
  for (const std::string& text : flags.lengths) {
    const absl::StatusOr<int64_t> length = ParseCount(text);
    if (!length.ok()) {
      return UsageError(Error(length.status().code(), "--lengths: {}", Message(length.status())));
    }
    options->lengths.push_back(*length);
  }
  for (const std::string& text : flags.depths) {
    const absl::StatusOr<double> depth = ParseReal(text);
    if (!depth.ok()) return UsageError(Error(depth.status().code(), "--depths: {}", Message(depth.status())));
    if (*depth < 0 || *depth > 100) {
      return UsageError(InvalidArgument("--depths: {} is no percentage, expected 0 to 100", Quoted(text)));
    }
    options->depths_percent.push_back(*depth);
  }
  return absl::OkStatus();
}

// A cell that is named twice would count its samples twice.
template <typename T>
absl::Status CheckOnce(std::string_view flag, const std::vector<T>& values) {
  std::set<T> seen;
  for (const T& value : values) {
    if (!seen.insert(value).second) {
      return UsageError(InvalidArgument("{}: {} is there twice", flag, value));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddNiahSamples(const NiahSampleFlags& flags, const CommandContext& context, NiahOptions* options,
                            NiahSettings* settings) {
  PALIMPSEST_RETURN_IF_ERROR(AddSizes(flags, options));
  std::vector<std::string> names = flags.tasks;
  if (names.empty()) names = {flags.haystack.empty() ? "single_noise" : "single_prose"};
  PALIMPSEST_RETURN_IF_ERROR(CheckOnce("--task", names));
  PALIMPSEST_RETURN_IF_ERROR(CheckOnce("--lengths", options->lengths));
  PALIMPSEST_RETURN_IF_ERROR(CheckOnce("--depths", options->depths_percent));
  NiahTaskOptions from{
      .prose_name = flags.haystack, .squad_name = flags.squad, .hotpot_qa_name = flags.hotpot_qa};
  const auto read = [&](const std::string& path, const char* name, std::string* text) -> absl::Status {
    if (path.empty()) return absl::OkStatus();
    PALIMPSEST_ASSIGN_OR_RETURN(*text, ReadTexts(path, context));
    settings->emplace_back(name, Sha256(*text).ToHex().substr(0, 16));
    return absl::OkStatus();
  };
  PALIMPSEST_RETURN_IF_ERROR(read(flags.haystack, "haystack", &from.prose));
  PALIMPSEST_RETURN_IF_ERROR(read(flags.squad, "squad", &from.squad));
  PALIMPSEST_RETURN_IF_ERROR(read(flags.hotpot_qa, "hotpotqa", &from.hotpot_qa));
  for (const std::string& name : names) {
    absl::StatusOr<std::unique_ptr<NiahTask>> task = MakeNiahTask(name, from);
    if (!task.ok()) return UsageError(task.status());
    options->tasks.push_back(*std::move(task));
  }
  options->first_seed = flags.first_seed;
  options->seeds = flags.seeds;
  options->turns = flags.turns;
  options->max_tokens = flags.max_tokens;
  settings->emplace_back("task", fmt::format("{}", fmt::join(names, ",")));
  settings->emplace_back("lengths", fmt::format("{}", fmt::join(options->lengths, ",")));
  settings->emplace_back("depths", fmt::format("{}", fmt::join(options->depths_percent, ",")));
  settings->emplace_back("seeds", fmt::format("{}", flags.seeds));
  settings->emplace_back("first_seed", fmt::format("{}", flags.first_seed));
  settings->emplace_back("turns", fmt::format("{}", flags.turns));
  settings->emplace_back("max_tokens", fmt::format("{}", flags.max_tokens));
  return absl::OkStatus();
}

void AddNiahSampleFlags(CLI::App& command, NiahSampleFlags& flags) {
  constexpr int64_t kCountMax = int64_t{1} << 20;
  command
      .add_option("--task", flags.tasks,
                  fmt::format("{}; several with commas; default single_noise, with --haystack single_prose",
                              fmt::join(NiahTaskNames(), ", ")))
      ->type_name("TASK,TASK")
      ->delimiter(',');
  command
      .add_option("--haystack", flags.haystack,
                  "prose of the tasks that read it: a text file or a folder of them; - is standard input")
      ->type_name("FILE")
      ->take_last();
  command.add_option("--squad", flags.squad, "questions and paragraphs of qa_1, in SQuAD's format")
      ->type_name("FILE")
      ->take_last();
  command.add_option("--hotpotqa", flags.hotpot_qa, "questions and paragraphs of qa_2, in HotpotQA's format")
      ->type_name("FILE")
      ->take_last();
  command.add_option("--lengths", flags.lengths, "tokens of prompt and answer together; default 1K")
      ->type_name("N,N")
      ->delimiter(',');
  command.add_option("--depths", flags.depths, "where the needle stands, in percent; default 0,25,50,75,100")
      ->type_name("N,N")
      ->delimiter(',');
  command.add_option("--seeds", flags.seeds, "samples of each length and depth; default 5")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kCountMax))
      ->take_last();
  command.add_option("--first-seed", flags.first_seed, "the seed of the first sample; default 1")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 53))
      ->take_last();
  command
      .add_option("--turns", flags.turns,
                  "questions to each text, asked one after the other in one conversation; default 1")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{100}))
      ->take_last();
  command.add_option("--max-tokens", flags.max_tokens, "of an answer; default: each task's own limit")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kCountMax))
      ->take_last();
}

}  // namespace palimpsest
