// A tier: a place that holds sealed values. Host memory, SSD and a peer look the same from here.
//
// Values are opaque bytes (sealed envelopes) under a key. A tier is a cache: no value is promised to stay,
// and any failure is a miss for the caller, who fetches elsewhere or recomputes (I-5). It knows nothing of
// attention.
//
// Parts    : a value is `parts` pieces of equal size one after another (the tiles of a block group). They are
//            put together; a reader takes all of them or one.
// Together : what one Put brings belongs together (the groups of a span, in the order of their text). It is
//            stored all or none; a tier of files keeps it side by side, and may evict it as one.
// Immutable: a value never changes; a second Put of a key is a no-op, whatever its bytes (I-3).
// Whole    : Get returns all bytes of one Put or none, also after a crash (I-4).
// Checked  : Get compares what it read with a checksum the tier made at Put. That covers the tier's medium;
//            the last reader still opens the envelope, whose tag covers the way from the producer (I-2). A
//            tier may leave that to the envelope where its options say so.
// Capacity : the tier's own. It evicts what was least recently used to make room, no more than needed (but
//            may evict together what was put together), and never exceeds its cap. Stats().used_bytes counts
//            every byte it still holds, also those of erased values that someone views or whose neighbours
//            remain (I-12). Get, Put and Touch make a value the most recent; Contains does not. A document
//            that was used is touched from its end to its beginning: what goes first is then its tail, and
//            what stays can still be begun with.
// Views    : what Get returns stays valid and constant until its last copy is gone, whatever becomes of the
//            value or of the tier.
// Errors   : NotFound: a miss. DataLoss: the value was damaged; it is dropped, so the next Get is a miss.
//            ResourceExhausted: no room, although all that could go would. InvalidArgument: an empty value,
//            or one that its parts do not divide. OutOfRange: a part that the value does not have.
//            Unavailable: the medium or the peer failed; a later try may succeed.
// Blocking : as long as the medium takes. Deadlines and threads belong to the caller (the mover).
// Threads  : any thread.
//
// To add a tier: implement this, be the only includer of your library, add a line to the implementations in
// tests/storage/tier_contract_test.cc (skip there, with the reason, where the machine lacks it) and one to
// the factory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest {

// What a value is, so that a tier may keep what is read differently apart.
enum class ValueKind : uint8_t {
  kBlock = 0,  // a block group; parts: its tiles, layer * kv_heads + kv_head
  kIndex = 1,  // the digests of a block group; parts: as of the group
  kPicks = 2,  // what a policy left of a document; one part
};
inline constexpr int kValueKinds = 3;
std::string_view NameOf(ValueKind kind);  // block | index | picks

struct TierKey {
  BlockId id;
  ValueKind kind = ValueKind::kBlock;
  TierKey(const BlockId& block, ValueKind k = ValueKind::kBlock) : id(block), kind(k) {}  // NOLINT: a block
  bool operator==(const TierKey&) const = default;
  std::string ToString() const;  // "block 12ab...": for errors
};
struct TierKeyHash {
  size_t operator()(const TierKey& key) const {
    return BlockIdHash{}(key.id) ^ (static_cast<size_t>(key.kind) * 0x9E3779B97F4A7C15u);
  }
};

// Bytes of a value that is being put; shared, so that no tier needs to copy what another keeps.
using TierValue = std::shared_ptr<const std::vector<uint8_t>>;
struct TierItem {
  TierKey key;
  TierValue value;
  uint32_t parts = 1;
};

// Bytes that were read; whoever copies it keeps them alive.
struct TierView {
  std::shared_ptr<const void> owner;
  std::span<const uint8_t> bytes;
};

// Takes values while they are read: the next bytes of the value of keys[i], which begin at `offset` of its
// `total` ones and are whole parts. They are the reader's, until it returns. Those of several values come by
// turns. A value that is read again begins again at 0; what came of it before counts no more.
using TakeParts =
    std::function<void(size_t i, uint64_t offset, uint64_t total, std::span<const uint8_t> bytes)>;

// What a listing says of a value.
struct TierEntry {
  TierKey key;
  uint32_t parts = 0;
  int64_t bytes = 0;
};

// The first three are levels; the others count from when the tier was made. Bytes are bytes of values.
struct TierStats {
  int64_t capacity_bytes = 0;
  int64_t used_bytes = 0;    // held now: values, and erased ones that a view or a neighbour still holds
  int64_t values = 0;        // that Get would find
  int64_t hits = 0;          // Get returned a value or a part; of GetTogether each value counts
  int64_t misses = 0;        // Get returned NotFound
  int64_t puts = 0;          // values stored
  int64_t known_puts = 0;    // Put of a key that was there
  int64_t refused_puts = 0;  // values that Put returned an error for
  int64_t evictions = 0;     // values dropped to make room
  int64_t evicted_bytes = 0;
  int64_t damaged = 0;  // Get returned DataLoss
};

class Tier {
 public:
  virtual ~Tier() = default;

  virtual std::string_view Name() const = 0;  // "host", "ssd", ...: the tier's label in metrics and receipts

  virtual absl::Status Put(std::span<const TierItem> items) = 0;
  // One value. It is not copied, if its capacity is its size.
  absl::Status Put(const TierKey& key, std::vector<uint8_t> value, uint32_t parts = 1);

  virtual absl::StatusOr<TierView> Get(const TierKey& key) = 0;
  virtual absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) = 0;
  // For each key, in the order given, what Get would have answered: a failure of one is not that of another.
  // `take` has had all bytes of a value that is OK, and perhaps some of others; it is called by this thread.
  // A tier of files reads what was put together in the order of its file, which is much faster than value by
  // value.
  virtual std::vector<absl::Status> GetTogether(std::span<const TierKey> keys, const TakeParts& take);
  // As Get would make them recent, from the first to the last; nothing is read and nothing counted. What is
  // not here is passed over.
  virtual void Touch(std::span<const TierKey> keys) = 0;
  virtual bool Contains(const TierKey& key) const = 0;  // a hint: Get may miss a moment later
  virtual absl::Status Erase(const TierKey& key) = 0;   // OK also if it was not there
  // What Get would find now, in any order. No value is read, and none becomes the most recent.
  virtual std::vector<TierEntry> List() const = 0;
  virtual TierStats Stats() const = 0;
};

// Makes whole values of what TakeParts is given: `take` is one.
class GatheredValues {
 public:
  explicit GatheredValues(size_t values) : values_(values) {}
  TakeParts take() {
    return [this](size_t i, uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
      if (offset == 0) values_[i].clear();
      values_[i].reserve(total);
      values_[i].insert(values_[i].end(), bytes.begin(), bytes.end());
    };
  }
  std::vector<uint8_t>& operator[](size_t i) { return values_[i]; }

 private:
  std::vector<std::vector<uint8_t>> values_;
};

// For implementations, so that all word these alike. InvalidArgument for the first item that the contract
// refuses.
absl::Status CheckTierItems(std::string_view tier, std::span<const TierItem> items);
absl::Status NoSuchPart(std::string_view tier, const TierKey& key, uint32_t part,
                        uint32_t parts);  // OutOfRange

}  // namespace palimpsest
