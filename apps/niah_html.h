// One page for a browser from a report of needles: maps of lengths and depths, curves of turns, what it cost.
// It holds all it needs and asks no network for anything.
//
// Safety: what comes from outside (names, the command) stands in one JSON block without a '<', and the page's
//         script shows it as text only.
// Parts : apps/niah_page/.
#pragma once

#include <string>
#include <string_view>

namespace palimpsest {

// `report_json`: what `niah --json` prints.
std::string NiahHtml(std::string_view report_json);

}  // namespace palimpsest
