// What came back for one request, and from where.
#pragma once

#include <cstdint>

#include "storage/mover.h"

namespace palimpsest {

struct RecallCounts {
  struct OfTier {
    int64_t slices = 0, bytes = 0;
  };
  OfTier device, host, ssd;    // device: those that this session still had
  int64_t missing_slices = 0;  // that no tier gave
  double seconds = 0;

  OfTier& Of(Level level) { return level == Level::kSsd ? ssd : host; }
  void Add(const RecallCounts& more) {
    for (OfTier RecallCounts::*const tier :
         {&RecallCounts::device, &RecallCounts::host, &RecallCounts::ssd}) {
      (this->*tier).slices += (more.*tier).slices;
      (this->*tier).bytes += (more.*tier).bytes;
    }
    missing_slices += more.missing_slices;
    seconds += more.seconds;
  }
};

}  // namespace palimpsest
