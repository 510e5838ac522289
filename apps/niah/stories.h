// The words of the stories, which their scorer knows, too.
#pragma once

#include <array>
#include <string_view>

namespace palimpsest {

inline constexpr std::array<std::string_view, 12> kStoryPlaces = {
    "kitchen", "garden",  "bathroom", "bedroom", "hallway", "office",
    "cellar",  "library", "garage",   "attic",   "balcony", "workshop"};

}  // namespace palimpsest
