// What a policy left of a document is read from a disk: any bytes are a view of this shape or a DataLoss, and
// a view that was read is written as the same bytes.
#include <cstdint>
#include <span>
#include <vector>

#include "proto/base/status.h"
#include "worker/compression/view_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  constexpr KvShape kShape = {.layers = 2, .kv_heads = 1, .head_size = 2};
  const std::span<const uint8_t> bytes(data, size);
  const absl::StatusOr<View> view = ParseView(kShape, bytes);
  if (!view.ok()) {
    PALIMPSEST_CHECK(view.status().code() == absl::StatusCode::kDataLoss);
    return 0;
  }
  PALIMPSEST_CHECK(view->heads.size() == 2);
  std::vector<uint8_t> again;
  AppendView(*view, kShape.head_size, &again);
  PALIMPSEST_CHECK(again.size() == size && std::equal(again.begin(), again.end(), data),
                   "{} bytes were read and {} written", size, again.size());
  return 0;
}
