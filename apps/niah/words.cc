#include "apps/niah/words.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace palimpsest {
namespace {

constexpr std::array<std::string_view, 64> kAdjectives = {
    "agile",    "amber",  "ample",  "ancient", "bashful", "bold",    "brave",  "breezy",  "brisk",   "bronze",
    "calm",     "candid", "clever", "cloudy",  "copper",  "cosy",    "crisp",  "curious", "dapper",  "daring",
    "dusty",    "eager",  "early",  "elegant", "faint",   "fancy",   "fluffy", "foggy",   "frosty",  "gentle",
    "gleaming", "golden", "grumpy", "hasty",   "hidden",  "hollow",  "humble", "icy",     "jolly",   "keen",
    "lively",   "loyal",  "lucky",  "mellow",  "modern",  "narrow",  "nimble", "olive",   "patient", "polite",
    "proud",    "quaint", "quiet",  "rapid",   "rustic",  "scarlet", "shiny",  "sleepy",  "steady",  "sturdy",
    "tender",   "velvet", "witty",  "wooden"};

constexpr std::array<std::string_view, 64> kNouns = {
    "acorn",    "almanac",   "anchor",  "antenna", "balloon",  "banjo",   "barrel",  "beacon",
    "bicycle",  "blanket",   "bottle",  "bridge",  "button",   "cabinet", "camera",  "canoe",
    "carpet",   "chimney",   "compass", "cushion", "dolphin",  "drawer",  "engine",  "envelope",
    "feather",  "ferry",     "fiddle",  "garage",  "giraffe",  "guitar",  "hammock", "harbor",
    "helmet",   "island",    "jacket",  "kettle",  "ladder",   "lantern", "magnet",  "mirror",
    "notebook", "orchard",   "paddle",  "parrot",  "pepper",   "piano",   "pillow",  "pumpkin",
    "puzzle",   "rocket",    "saddle",  "scooter", "sculptor", "sofa",    "spoon",   "sweater",
    "teapot",   "telescope", "ticket",  "tractor", "umbrella", "violin",  "whistle", "windmill"};

}  // namespace

std::string RandomKey(RngSequence& random) {
  const std::string_view adjective = kAdjectives[random.Below(kAdjectives.size())];
  const std::string_view noun = kNouns[random.Below(kNouns.size())];
  return fmt::format("{}-{}", adjective, noun);
}

std::string RandomNumber(RngSequence& random) { return fmt::format("{}", 1000000 + random.Below(9000000)); }

}  // namespace palimpsest
