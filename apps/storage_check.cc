#include "apps/storage_check.h"

#include <boost/json.hpp>
#include <filesystem>
#include <system_error>
#include <utility>

#include "proto/base/json.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "storage/data_key.h"
#include "storage/envelope.h"
#include "storage/tier/rocksdb_tier.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

// Is every tile of the value what was sealed under its name, for its place?
bool Whole(const TierKey& key, uint32_t parts, const TierView& value, const DataKey* data_key) {
  const Require require = data_key != nullptr ? Require::kEncrypted : Require::kAny;
  const size_t stride = value.bytes.size() / parts;
  std::vector<uint8_t> plain;
  for (uint32_t part = 0; part < parts; ++part) {
    const auto tile = VerifyTile(value.bytes.subspan(part * stride, stride), data_key, &plain, require);
    if (!tile.ok() || !InPlace(key.id, part, *tile)) return false;
    if (TilesOfValue(tile->geometry) != int64_t{parts}) return false;
  }
  return true;
}

absl::StatusOr<StoredTier> CheckTier(const EngineOptions::Ssd& ssd, const std::string& folder,
                                     const StorageCheck& check) {
  PALIMPSEST_ASSIGN_OR_RETURN(
      const std::unique_ptr<Tier> tier,
      OpenRocksDbTier({.folder = folder, .capacity_bytes = ssd.bytes, .lock_wait = {}}));
  std::shared_ptr<DataKey> key;
  if (check.verify && !ssd.key_file.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(key, DataKey::Load(ssd.key_file, ssd.folder + "/data.key"));
  }
  StoredTier stored{.folder = folder,
                    .capacity_bytes = tier->Stats().capacity_bytes,
                    .used_bytes = tier->Stats().used_bytes,
                    .kinds = {},
                    .damaged = {}};
  Progress progress("verify", "bytes", stored.used_bytes, check.progress);
  if (!check.verify) {
    for (const TierEntry& entry : tier->List()) {
      StoredTier::OfKind& kind = stored.kinds[static_cast<size_t>(entry.key.kind)];
      ++kind.values;
      kind.bytes += entry.bytes;
    }
    return stored;
  }
  std::vector<TierKey> damaged;
  PALIMPSEST_RETURN_IF_ERROR(VisitRocksDbTier(
      *tier, [&](const TierKey& name, uint32_t parts, const absl::StatusOr<TierView>& value) {
        StoredTier::OfKind& kind = stored.kinds[static_cast<size_t>(name.kind)];
        ++kind.values;
        const int64_t bytes = value.ok() ? static_cast<int64_t>(value->bytes.size()) : 0;
        kind.bytes += bytes;
        if (!value.ok() || !Whole(name, parts, *value, key.get())) damaged.push_back(name);
        progress.Add(bytes);
        return !check.cancel->IsSet();
      }));
  PALIMPSEST_RETURN_IF_ERROR(check.cancel->Check());
  progress.Done();
  for (const TierKey& name : damaged) {
    stored.damaged.push_back(name.ToString());
    tier->Erase(name).IgnoreError();
  }
  return stored;
}

}  // namespace

absl::StatusOr<std::vector<StoredTier>> CheckStorage(const Config& config, const StorageCheck& check) {
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, StoringEngineOptionsOf(config));
  std::vector<StoredTier> tiers;
  std::error_code ignored;
  for (int i = 0; std::filesystem::exists(fmt::format("{}/{}", options.ssd.folder, i), ignored); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(StoredTier tier,
                                CheckTier(options.ssd, fmt::format("{}/{}", options.ssd.folder, i), check));
    tiers.push_back(std::move(tier));
  }
  return tiers;
}

std::string StorageText(const std::vector<StoredTier>& tiers, bool verified) {
  if (tiers.empty()) return "no SSD tier is there yet: `palimpsest ingest` makes one\n";
  std::string text;
  for (const StoredTier& tier : tiers) {
    text += fmt::format("{}: {} of {}\n", tier.folder, ApproximateBytes(tier.used_bytes),
                        ApproximateBytes(tier.capacity_bytes));
    for (size_t kind = 0; kind < tier.kinds.size(); ++kind) {
      text += fmt::format("  {:<6} {:>8} values {:>12}\n", NameOf(static_cast<ValueKind>(kind)),
                          tier.kinds[kind].values, ApproximateBytes(tier.kinds[kind].bytes));
    }
    for (const std::string& name : tier.damaged) text += fmt::format("  damaged, dropped: {}\n", name);
    if (verified && tier.damaged.empty()) text += "  all of it is whole\n";
  }
  return text;
}

std::string StorageJson(const std::vector<StoredTier>& tiers, bool verified) {
  json::array list;
  for (const StoredTier& tier : tiers) {
    json::object kinds;
    for (size_t kind = 0; kind < tier.kinds.size(); ++kind) {
      kinds[std::string(NameOf(static_cast<ValueKind>(kind)))] =
          json::object{{"values", tier.kinds[kind].values}, {"bytes", tier.kinds[kind].bytes}};
    }
    list.push_back(json::object{{"tier", "ssd"},
                                {"folder", tier.folder},
                                {"capacity_bytes", tier.capacity_bytes},
                                {"used_bytes", tier.used_bytes},
                                {"kinds", std::move(kinds)},
                                {"damaged", json::array(tier.damaged.begin(), tier.damaged.end())}});
  }
  return PrintJson(json::object{{"verified", verified}, {"tiers", std::move(list)}});
}

}  // namespace palimpsest
