// The tier in host memory: a byte cap, least recently used values go first.
//
// A value is kept as it was put, without a copy; a part is a view into it. A value that a view holds is not
// evicted, since that would free nothing; erased, it keeps counting against the cap until its last view is
// gone. So used_bytes never exceeds the cap and is what the process really holds (the table adds about 200
// bytes a value and, verifying, 8 a part, which are not counted: a value is a block group of about 1 MiB). Of
// what one Put brought the last goes first: a text's beginning is of use without its end, not the other way
// round. The contract is in storage/tier.h.
#pragma once

#include <memory>

#include "storage/tier.h"

namespace palimpsest {

struct HostTierOptions {
  int64_t capacity_bytes = 0;
  // A checksum for each part, made at Put and compared at each Get and GetPart (8-18 GB/s: about 0.1 ms for a
  // value of 1 MiB, 2 us for a tile of 16 KiB). False: memory is trusted, and what the envelope's tag shows
  // the last reader has to do.
  bool verify_reads = true;
};

std::unique_ptr<Tier> MakeHostTier(const HostTierOptions& options);

}  // namespace palimpsest
