// The index of a document is read from a disk: whatever its bytes, scoring it reads nothing beside them and
// gives numbers to rank by. The first byte says the kind, the second how many rows it was made of.
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kHeadSize = 16, kGroup = 2, kSlots = 64;

Backend& Kernels() {
  static const std::unique_ptr<Backend> kBackend = [] {
    auto made = MakeBackend({.isa = "auto", .threads = {.threads = 1, .pin = false, .spin_us = 0}});
    PALIMPSEST_CHECK(made.ok(), "{}", Message(made.status()));
    return std::move(made).value();
  }();
  return *kBackend;
}

}  // namespace
}  // namespace palimpsest

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  static const RopeTable kRope(kHeadSize, kHeadSize, 1e4, {}, 64);
  if (size < 2) return 0;
  const auto kind = static_cast<DigestKind>(data[0] % 4);
  const int64_t count = data[1] % (kSlots + 1);
  const uint64_t slots = count == kSlots ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
  // On the heap and of just its size, so that a read beside it is seen. What is missing is 0.
  std::vector<uint8_t> digest(static_cast<size_t>(DigestBytes(kind, kHeadSize)));
  std::copy_n(data + 2, std::min(size - 2, digest.size()), digest.begin());
  std::vector<float> query(static_cast<size_t>(kGroup * kHeadSize));
  for (size_t i = 0; i < query.size(); ++i) query[i] = static_cast<float>(i % 7) - 3.0f;
  const uint8_t* const tile = digest.data();
  const int64_t position = 5;
  std::vector<float> out(kSlots);
  const DigestHead head{.q = {query.data(), 1, kGroup * kHeadSize, kGroup * kHeadSize},
                        .tiles = {&tile, 1},
                        .slots = {&slots, 1},
                        .out = out.data()};
  Kernels().ScoreDigests({.kind = kind,
                          .group = kGroup,
                          .head_size = kHeadSize,
                          .slice = 1,
                          .positions = {&position, 1},
                          .rope = &kRope,
                          .heads = {&head, 1}});
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    const float score = out[static_cast<size_t>(slot)];
    PALIMPSEST_CHECK(!std::isnan(score), "slot {} of kind {}", slot, static_cast<int>(kind));
    PALIMPSEST_CHECK(slot < count || score == -std::numeric_limits<float>::infinity());
  }
  return 0;
}
