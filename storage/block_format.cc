#include "storage/block_format.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/tensor.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Group {
  Bf16 low = 0, step = 0;
};

int LevelsOf(BlockFormat format) { return format == BlockFormat::kInt8 ? 255 : 15; }

// The bf16 nearest to `x` that is not above it.
Bf16 RoundDown(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const Bf16 cut = static_cast<Bf16>(bits >> 16);
  return x < 0 && (bits & 0xffff) != 0 ? static_cast<Bf16>(cut + 1) : cut;  // away from 0
}
Bf16 RoundUp(float x) { return static_cast<Bf16>(RoundDown(-x) ^ 0x8000); }

// False where a number is not finite, or so large that no step covers all of them.
bool GroupOf(float low, float high, int levels, Group* group) {
  if (!std::isfinite(low) || !std::isfinite(high)) return false;
  *group = {.low = RoundDown(low), .step = 0};
  group->step = RoundUp((high - Bf16ToFloat(group->low)) / static_cast<float>(levels));
  return std::isfinite(Bf16ToFloat(group->low)) && std::isfinite(Bf16ToFloat(group->step));
}

// What turns numbers of a group into codes, and back.
struct Scale {
  explicit Scale(const Group& group)
      : low(Bf16ToFloat(group.low)),
        step(Bf16ToFloat(group.step)),
        inverse(step >= std::numeric_limits<float>::min() ? 1 / step : 0) {}
  uint8_t Code(float x, int levels) const {
    return static_cast<uint8_t>(std::clamp(static_cast<int>(std::lrintf((x - low) * inverse)), 0, levels));
  }
  float low, step, inverse;
};

struct Shape {
  int64_t tokens, head_size;
  size_t rows() const { return static_cast<size_t>(tokens); }
  size_t d() const { return static_cast<size_t>(head_size); }
  size_t groups() const { return d() + rows(); }
  size_t elements() const { return 2 * rows() * d(); }
};

// Groups of the keys' channels, then of the values' tokens.
bool FindGroups(const Shape& shape, int levels, std::span<const float> x, std::span<Group> groups) {
  const size_t d = shape.d();
  std::vector<float> low(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(d)), high = low;
  bool finite = true;
  for (const float one : x) finite &= std::isfinite(one);
  for (size_t t = 1; t < shape.rows(); ++t) {
    for (size_t c = 0; c < d; ++c) {
      low[c] = std::min(low[c], x[t * d + c]);
      high[c] = std::max(high[c], x[t * d + c]);
    }
  }
  for (size_t c = 0; c < d; ++c) finite &= GroupOf(low[c], high[c], levels, &groups[c]);
  for (size_t t = 0; t < shape.rows(); ++t) {
    const auto row = x.subspan((shape.rows() + t) * d, d);
    const auto [least, most] = std::minmax_element(row.begin(), row.end());
    finite &= GroupOf(*least, *most, levels, &groups[d + t]);
  }
  return finite;
}

// Calls what(element, scale) for each, in the order of the codes.
template <typename What>
void ForEach(const Shape& shape, std::span<const Group> groups, const What& what) {
  const size_t d = shape.d(), values = shape.rows() * d;
  std::vector<Scale> scales;
  scales.reserve(groups.size());
  for (const Group& group : groups) scales.emplace_back(group);
  for (size_t i = 0; i < values; ++i) what(i, scales[i % d]);
  for (size_t i = 0; i < values; ++i) what(values + i, scales[d + i / d]);
}

}  // namespace

std::string_view BlockFormatName(BlockFormat format) {
  switch (format) {
    case BlockFormat::kInt8:
      return "int8";
    case BlockFormat::kInt4:
      return "int4";
    case BlockFormat::kBf16:
      break;
  }
  return "bf16";
}

std::optional<BlockFormat> ParseBlockFormat(std::string_view name) {
  for (const BlockFormat format : {BlockFormat::kBf16, BlockFormat::kInt8, BlockFormat::kInt4}) {
    if (BlockFormatName(format) == name) return format;
  }
  return std::nullopt;
}

size_t TilePayloadBytes(BlockFormat format, int64_t tokens, int64_t head_size) {
  const Shape shape{tokens, head_size};
  if (format == BlockFormat::kBf16) return shape.elements() * sizeof(Bf16);
  const size_t codes = format == BlockFormat::kInt8 ? shape.elements() : shape.elements() / 2;
  return shape.groups() * sizeof(Group) + codes;
}

bool EncodeTile(BlockFormat format, int64_t tokens, int64_t head_size, std::span<const uint8_t> bf16,
                std::span<uint8_t> out) {
  const Shape shape{tokens, head_size};
  PALIMPSEST_CHECK(bf16.size() == TilePayloadBytes(BlockFormat::kBf16, tokens, head_size) &&
                       out.size() == TilePayloadBytes(format, tokens, head_size) && head_size % 2 == 0,
                   "a tile of {} bytes to {} bytes of {}", bf16.size(), out.size(), BlockFormatName(format));
  if (format == BlockFormat::kBf16) {
    std::copy(bf16.begin(), bf16.end(), out.begin());
    return true;
  }
  std::vector<float> x(shape.elements());
  for (size_t i = 0; i < x.size(); ++i) {
    Bf16 one;
    std::memcpy(&one, bf16.data() + i * sizeof(Bf16), sizeof one);
    x[i] = Bf16ToFloat(one);
  }
  const int levels = LevelsOf(format);
  std::vector<Group> groups(shape.groups());
  if (!FindGroups(shape, levels, x, groups)) return false;
  std::memcpy(out.data(), groups.data(), groups.size() * sizeof(Group));
  const std::span<uint8_t> codes = out.subspan(groups.size() * sizeof(Group));
  if (format == BlockFormat::kInt8) {
    ForEach(shape, groups, [&](size_t i, const Scale& scale) { codes[i] = scale.Code(x[i], levels); });
  } else {
    ForEach(shape, groups, [&](size_t i, const Scale& scale) {
      const uint8_t code = scale.Code(x[i], levels);
      codes[i / 2] = i % 2 == 0 ? code : static_cast<uint8_t>(codes[i / 2] | code << 4);
    });
  }
  return true;
}

absl::Status DecodeTile(BlockFormat format, int64_t tokens, int64_t head_size, std::span<const uint8_t> bytes,
                        std::span<uint8_t> bf16) {
  const Shape shape{tokens, head_size};
  if (tokens < 1 || head_size < 2 || head_size % 2 != 0 ||
      bytes.size() != TilePayloadBytes(format, tokens, head_size) ||
      bf16.size() != TilePayloadBytes(BlockFormat::kBf16, tokens, head_size)) {
    return Error(absl::StatusCode::kDataLoss, "a tile of {} x {} in {} has {} bytes", tokens, head_size,
                 BlockFormatName(format), bytes.size());
  }
  if (format == BlockFormat::kBf16) {
    std::copy(bytes.begin(), bytes.end(), bf16.begin());
    return absl::OkStatus();
  }
  std::vector<Group> groups(shape.groups());
  std::memcpy(groups.data(), bytes.data(), groups.size() * sizeof(Group));
  for (const Group& group : groups) {
    const float low = Bf16ToFloat(group.low), step = Bf16ToFloat(group.step);
    if (!std::isfinite(low) || !std::isfinite(step) || step < 0)
      return Error(absl::StatusCode::kDataLoss, "a tile in {} has a group from {} in steps of {}",
                   BlockFormatName(format), low, step);
  }
  const std::span<const uint8_t> codes = bytes.subspan(groups.size() * sizeof(Group));
  const auto write = [&](size_t i, const Scale& scale, int code) {
    const Bf16 x = FloatToBf16(scale.low + static_cast<float>(code) * scale.step);
    std::memcpy(bf16.data() + i * sizeof(Bf16), &x, sizeof x);
  };
  if (format == BlockFormat::kInt8) {
    ForEach(shape, groups, [&](size_t i, const Scale& scale) { write(i, scale, codes[i]); });
  } else {
    ForEach(shape, groups, [&](size_t i, const Scale& scale) {
      write(i, scale, i % 2 == 0 ? codes[i / 2] & 15 : codes[i / 2] >> 4);
    });
  }
  return absl::OkStatus();
}

namespace {

bool InBits(uint32_t format) { return format == kTileInt8 || format == kTileInt4; }

}  // namespace

std::vector<uint8_t> InTierFormat(std::vector<OpenedTile>* tiles, BlockFormat format) {
  if (format == BlockFormat::kBf16) return {};
  size_t total = 0;
  for (const OpenedTile& tile : *tiles) {
    const TileGeometry& is = tile.geometry;
    const bool whole = is.format == kTileBf16 && is.head_size % 2 == 0 &&
                       tile.payload.size() == TilePayloadBytes(BlockFormat::kBf16, is.tokens, is.head_size);
    if (!whole) return {};
    total += kEnvelopeHeaderBytes + TilePayloadBytes(format, is.tokens, is.head_size);
  }
  std::vector<uint8_t> all;
  all.reserve(total);  // host memory is counted by what is in it, not by what it could hold
  for (const OpenedTile& tile : *tiles) {
    const TileGeometry& is = tile.geometry;
    const size_t at = all.size(), size = TilePayloadBytes(format, is.tokens, is.head_size);
    all.resize(at + kEnvelopeHeaderBytes + size);
    if (!EncodeTile(format, is.tokens, is.head_size, tile.payload,
                    std::span(all).subspan(at + kEnvelopeHeaderBytes)))
      return {};
  }
  for (OpenedTile& tile : *tiles) tile.geometry.format = static_cast<uint32_t>(format);
  return all;
}

uint32_t DecodedFormat(uint32_t format) { return InBits(format) ? kTileBf16 : format; }

// Room for what its counts say only when they are true of the bytes that are there (I-11).
size_t DecodedPayloadBytes(const OpenedTile& tile) {
  const TileGeometry& is = tile.geometry;
  const bool grows =
      InBits(is.format) &&
      tile.payload.size() == TilePayloadBytes(static_cast<BlockFormat>(is.format), is.tokens, is.head_size);
  return grows ? TilePayloadBytes(BlockFormat::kBf16, is.tokens, is.head_size) : tile.payload.size();
}

absl::Status DecodeInto(const OpenedTile& tile, std::span<uint8_t> payload) {
  const TileGeometry& is = tile.geometry;
  if (InBits(is.format)) {
    return DecodeTile(static_cast<BlockFormat>(is.format), is.tokens, is.head_size, tile.payload, payload);
  }
  std::copy(tile.payload.begin(), tile.payload.end(), payload.begin());
  return absl::OkStatus();
}

}  // namespace palimpsest
