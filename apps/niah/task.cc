#include "apps/niah/task.h"

#include <utility>

#include "apps/niah/haystack.h"
#include "apps/niah/single_needle.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

constexpr std::string_view kSingleNoise = "single_noise", kSingleProse = "single_prose";

}  // namespace

std::vector<std::string> NiahTaskNames() { return {std::string(kSingleNoise), std::string(kSingleProse)}; }

absl::StatusOr<std::unique_ptr<NiahTask>> MakeNiahTask(std::string_view name,
                                                       const NiahTaskOptions& options) {
  if (name == kSingleNoise) return std::make_unique<SingleNeedle>(kSingleNoise, MakeNoiseHaystack());
  if (name == kSingleProse) {
    if (options.prose_name.empty()) {
      return InvalidArgument("task {} hides its needle in prose; give a text with --haystack FILE", name);
    }
    PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<Haystack> prose,
                                MakeProseHaystack(options.prose, options.prose_name));
    return std::make_unique<SingleNeedle>(kSingleProse, std::move(prose));
  }
  const std::vector<std::string> names = NiahTaskNames();
  return InvalidArgument("task {} is not {}{}", Quoted(name), fmt::join(names, " or "),
                         DidYouMean(name, names));
}

}  // namespace palimpsest
