#include "worker/compression/view_format.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

template <typename T>
void Append(std::span<const T> values, std::vector<uint8_t>* out) {
  const auto* const bytes = reinterpret_cast<const uint8_t*>(values.data());
  out->insert(out->end(), bytes, bytes + values.size_bytes());
}
void AppendCount(size_t count, std::vector<uint8_t>* out) {
  const uint32_t value = static_cast<uint32_t>(count);
  Append<uint32_t>(std::span(&value, 1), out);
}

// Reads on until something does not fit; then all that is read is empty.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : left_(bytes) {}
  uint32_t Count() {
    uint32_t value = 0;
    Take(&value, 1);
    return value;
  }
  template <typename T>
  void Read(size_t count, std::vector<T>* values) {
    if (count > left_.size() / sizeof(T)) {
      failed_ = true;
      return;
    }
    values->resize(count);
    Take(values->data(), count);
  }
  template <typename T>
  void Take(T* to, size_t count) {
    const size_t bytes = count * sizeof(T);
    if (failed_ || bytes > left_.size()) {
      failed_ = true;
      return;
    }
    if (bytes > 0) std::memcpy(to, left_.data(), bytes);
    left_ = left_.subspan(bytes);
  }
  bool failed() const { return failed_; }
  bool at_end() const { return !failed_ && left_.empty(); }

 private:
  std::span<const uint8_t> left_;
  bool failed_ = false;
};

bool Ascending(const std::vector<int32_t>& tokens) {
  return (tokens.empty() || tokens.front() >= 0) &&
         std::adjacent_find(tokens.begin(), tokens.end(), std::greater_equal<>()) == tokens.end();
}

}  // namespace

void AppendView(const View& view, int64_t head_size, std::vector<uint8_t>* out) {
  AppendCount(kPicksVersion, out);
  AppendCount(view.heads.size(), out);
  AppendCount(static_cast<size_t>(head_size), out);
  AppendCount(view.losses.size(), out);
  Append(std::span<const uint8_t>(view.parent.bytes), out);
  Append<float>(view.losses, out);
  for (const RestHead& head : view.heads) {
    AppendCount(head.tokens.size(), out);
    AppendCount(head.scores.size(), out);
    AppendCount(head.tokens.empty() ? 0 : head.sums.size() / head.tokens.size(), out);
    Append<int32_t>(head.tokens, out);
    Append<float>(head.scores, out);
    Append<float>(head.sums, out);
    Append<Bf16>(head.rest, out);
  }
}

absl::StatusOr<View> ParseView(const KvShape& shape, std::span<const uint8_t> bytes) {
  Reader in(bytes);
  const uint32_t version = in.Count(), heads = in.Count(), head_size = in.Count(), losses = in.Count();
  if (version != kPicksVersion || heads != shape.tiles() || head_size != shape.head_size) {
    return DataLoss("picks of version {}, {} heads of {}; expected version {}, {} heads of {}", version,
                    heads, head_size, kPicksVersion, shape.tiles(), shape.head_size);
  }
  View view;
  in.Take(view.parent.bytes.data(), view.parent.bytes.size());
  in.Read(losses, &view.losses);
  view.heads.resize(heads);
  for (RestHead& head : view.heads) {
    const uint32_t tokens = in.Count(), scores = in.Count(), rows = in.Count();
    in.Read(tokens, &head.tokens);
    in.Read(scores, &head.scores);
    in.Read(size_t{rows} * tokens, &head.sums);
    in.Read(size_t{tokens} * 2 * head_size, &head.rest);
    const bool of_tokens = tokens == 0 ? rows == 0 : scores == 0 || scores == tokens;
    if (in.failed() || !of_tokens || !Ascending(head.tokens)) return DataLoss("picks are cut short or torn");
  }
  if (!in.at_end()) return DataLoss("picks are followed by other bytes");
  return view;
}

}  // namespace palimpsest
