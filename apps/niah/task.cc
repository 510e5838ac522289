#include "apps/niah/task.h"

#include <array>
#include <utility>

#include "apps/niah/haystack.h"
#include "apps/niah/single_needle.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

struct NamedTask {
  std::string_view name;
  bool facts, prose;
};
constexpr std::array<NamedTask, 4> kTasks = {{{"single_noise", false, false},
                                              {"single_prose", false, true},
                                              {"facts_noise", true, false},
                                              {"facts_prose", true, true}}};

}  // namespace

double NiahDepth(const NiahRequest& request, int64_t turn) {
  const double depth =
      request.depth_percent + 100 * static_cast<double>(turn) / static_cast<double>(request.turns);
  return depth > 100 ? depth - 100 : depth;
}

std::vector<std::string> NiahTaskNames() {
  std::vector<std::string> names;
  for (const NamedTask& task : kTasks) names.emplace_back(task.name);
  return names;
}

absl::StatusOr<std::unique_ptr<NiahTask>> MakeNiahTask(std::string_view name,
                                                       const NiahTaskOptions& options) {
  for (const NamedTask& task : kTasks) {
    if (task.name != name) continue;
    std::unique_ptr<Haystack> haystack;
    if (task.prose) {
      if (options.prose_name.empty()) {
        return InvalidArgument("task {} hides its needle in prose; give a text with --haystack FILE", name);
      }
      PALIMPSEST_ASSIGN_OR_RETURN(haystack, MakeProseHaystack(options.prose, options.prose_name));
    } else {
      haystack = MakeNoiseHaystack();
    }
    return std::make_unique<SingleNeedle>(task.name, std::move(haystack), task.facts);
  }
  const std::vector<std::string> names = NiahTaskNames();
  return InvalidArgument("task {} is not {}{}", Quoted(name), fmt::join(names, " or "),
                         DidYouMean(name, names));
}

}  // namespace palimpsest
