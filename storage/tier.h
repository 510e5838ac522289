// A tier: a place that holds sealed blocks. Host memory, SSD and a peer look the same from here.
//
// Values are opaque bytes (sealed envelopes) under a BlockId. A tier is a cache: no value is promised to
// stay, and any failure is a miss for the caller, who fetches elsewhere or recomputes (I-5). It knows nothing
// of attention.
//
// Immutable: a value never changes; a second Put of an id is a no-op, whatever its bytes (I-3).
// Whole    : Get returns all bytes of one Put or none, also after a crash (I-4).
// Checked  : Get compares what it read with a checksum the tier made at Put. That covers the tier's
//            medium; the last reader still opens the envelope, whose tag covers the way from the producer
//            (I-2).
// Capacity : the tier's own. It evicts least recently used values to make room, no more than needed,
//            and never exceeds its cap. Stats().used_bytes counts every byte it still holds, also those of
//            erased values that someone views (I-12). Get and Put make a value the most recent; Contains does
//            not.
// Views    : what Get returns stays valid and constant until its last copy is gone, whatever becomes of the
//            value or of the tier.
// Errors   : NotFound: a miss. DataLoss: the value was damaged; it is dropped, so the next Get is a miss.
//            ResourceExhausted: no room, although all that could go would. InvalidArgument: an empty value.
//            Unavailable: the medium or the peer failed; a later try may succeed.
// Blocking : as long as the medium takes. Deadlines and threads belong to the caller (the tiered store).
// Threads  : any thread.
//
// To add a tier: implement this, be the only includer of your library, add a line to the implementations in
// tests/storage/tier_contract_test.cc (skip there, with the reason, where the machine lacks it) and one to
// the factory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest {

// Shared by the tier and everyone who reads: the last one frees the bytes.
using TierValue = std::shared_ptr<const std::vector<uint8_t>>;

// The first three are levels; the others count from when the tier was made. Bytes are bytes of values.
struct TierStats {
  int64_t capacity_bytes = 0;
  int64_t used_bytes = 0;    // held now: values, and erased ones that a view still holds
  int64_t values = 0;        // that Get would find
  int64_t hits = 0;          // Get returned a value
  int64_t misses = 0;        // Get returned NotFound
  int64_t puts = 0;          // values stored
  int64_t known_puts = 0;    // Put of an id that was there
  int64_t refused_puts = 0;  // Put that returned an error
  int64_t evictions = 0;     // values dropped to make room
  int64_t evicted_bytes = 0;
  int64_t damaged = 0;  // Get returned DataLoss
};

class Tier {
 public:
  virtual ~Tier() = default;

  virtual std::string_view Name() const = 0;  // "host", "ssd", ...: the tier's label in metrics and receipts

  // Takes the vector without copying it, if its capacity is its size.
  virtual absl::Status Put(const BlockId& id, std::vector<uint8_t> value) = 0;
  // The value is the parts one after another. Joins and calls Put; a tier that can write parts as they are
  // overrides it.
  virtual absl::Status PutParts(const BlockId& id, std::span<const std::span<const uint8_t>> parts);

  virtual absl::StatusOr<TierValue> Get(const BlockId& id) = 0;
  virtual bool Contains(const BlockId& id) const = 0;  // a hint: Get may miss a moment later
  virtual absl::Status Erase(const BlockId& id) = 0;   // OK also if it was not there
  virtual TierStats Stats() const = 0;
};

}  // namespace palimpsest
