// The tier in host memory: a byte cap, least recently used values go first.
//
// A value that a view holds is not evicted, since that would free nothing; erased, it keeps counting against
// the cap until its last view is gone. So used_bytes never exceeds the cap and is what the process really
// holds (the table adds about 200 bytes a value, which is not counted: a value is a block group of about 1
// MiB). The contract is in storage/tier.h.
#pragma once

#include <memory>

#include "storage/tier.h"

namespace palimpsest {

struct HostTierOptions {
  int64_t capacity_bytes = 0;
  // Compare with the checksum at each Get: about 0.1 ms for a value of 1 MiB (8-18 GB/s).
  bool verify_reads = true;
};

std::unique_ptr<Tier> MakeHostTier(const HostTierOptions& options);

}  // namespace palimpsest
