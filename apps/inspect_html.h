// One page for a browser: the text as tokens, each shaded by how many heads keep it, beside a map of layers x
// KV heads; or the same of two policies side by side. It holds all it needs and asks no network for anything.
//
// Safety: what comes from outside (tokens, names, the command) stands in one JSON block without a '<', and
//         the page's script shows it as text only.
// Size  : of kept tokens at most a bit per token of the text, head and step, of a pot one per token of the
//         pot (kept_code.h). Of many distillations evenly spaced ones are drawn: 256 at most, and fewer where
//         that would pass 24 MiB.
// Parts : apps/inspect_page/.
#pragma once

#include <span>
#include <string>

#include "apps/results.h"
#include "text/tokenizer.h"

namespace palimpsest {

// A browser draws one element for each.
inline constexpr int64_t kPageTokensMax = 1 << 18;

struct InspectPage {
  std::string model;    // its name
  std::string command;  // that makes this page again
  int64_t layers = 0, kv_heads = 0;
};

// REQUIRES: one inspection or two, of the same ids.
std::string InspectionHtml(std::span<const Inspection> inspections, const InspectPage& about,
                           const Tokenizer& tokenizer);

}  // namespace palimpsest
