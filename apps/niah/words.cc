#include "apps/niah/words.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <unordered_set>

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

std::string KeyOf(uint64_t adjective, uint64_t noun) {
  return fmt::format("{}-{}", kAdjectives[adjective], kNouns[noun]);
}

}  // namespace

std::string RandomKey(RngSequence& random) {
  const uint64_t adjective = random.Below(kAdjectives.size());
  return KeyOf(adjective, random.Below(kNouns.size()));
}

std::string RandomNumber(RngSequence& random) { return fmt::format("{}", 1000000 + random.Below(9000000)); }

std::string RandomDigits(RngSequence& random, int64_t digits) {
  std::string number(1, static_cast<char>('1' + random.Below(9)));
  for (int64_t i = 1; i < digits; ++i) number += static_cast<char>('0' + random.Below(10));
  return number;
}

std::string RandomUuid(RngSequence& random) {
  const uint64_t high = (random.Next() & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (random.Next() & ~(uint64_t{3} << 62)) | uint64_t{1} << 63;
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff, high & 0xffff,
                     low >> 48, low & 0xffffffffffff);
}

std::string RandomLetters(RngSequence& random, int64_t letters, char first) {
  std::string word;
  for (int64_t i = 0; i < letters; ++i)
    word += static_cast<char>(first + static_cast<char>(random.Below(26)));
  return word;
}

std::string WordOf(uint64_t number) {
  constexpr uint64_t kKeys = kAdjectives.size() * kNouns.size();
  if (number < kKeys) return KeyOf(number / kNouns.size(), number % kNouns.size());
  number -= kKeys;
  // The key behind a word's first part would be a part of it, so its parts are joined in another way.
  return fmt::format("{}{}{}", kAdjectives[number / kKeys % kAdjectives.size()],
                     kAdjectives[number / kNouns.size() % kAdjectives.size()],
                     kNouns[number % kNouns.size()]);
}

std::vector<uint64_t> RandomNumbersBelow(uint64_t bound, uint64_t count, RngSequence& random) {
  std::unordered_set<uint64_t> taken;
  std::vector<uint64_t> numbers;
  while (numbers.size() < count) {  // a few tries each: callers take half of them at most, or few
    const uint64_t number = random.Below(bound);
    if (taken.insert(number).second) numbers.push_back(number);
  }
  return numbers;
}

}  // namespace palimpsest
