#include "apps/storage_check.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

#include "coordinator/catalog.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "storage/data_key.h"
#include "storage/envelope.h"
#include "storage/tier/rocksdb_tier.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

enum class Found { kWhole, kSealedOtherwise, kDamaged };

// Is every tile of the value what was sealed under its name, for its place?
Found Look(const TierKey& key, uint32_t parts, const TierView& value, const DataKey* data_key) {
  const Require require = data_key != nullptr ? Require::kEncrypted : Require::kAny;
  const size_t stride = value.bytes.size() / parts;
  std::vector<uint8_t> plain;
  for (uint32_t part = 0; part < parts; ++part) {
    const auto tile = VerifyTile(value.bytes.subspan(part * stride, stride), data_key, &plain, require);
    if (tile.status().code() == absl::StatusCode::kFailedPrecondition) return Found::kSealedOtherwise;
    if (!tile.ok() || !InPlace(key.id, part, *tile) || TilesOfValue(tile->geometry) != int64_t{parts})
      return Found::kDamaged;
  }
  return Found::kWhole;
}

// As large as its disk: who only looks evicts nothing.
absl::StatusOr<std::unique_ptr<Tier>> OpenToLook(const std::string& folder, RocksDbTierReport* report) {
  std::error_code error;
  const fs::space_info disk = fs::space(folder, error);
  if (error) {
    return Error(absl::StatusCode::kUnavailable, "ssd tier {}: {}; see the disk's health",
                 Quoted(folder, 4096), error.message());
  }
  return OpenRocksDbTier(
      {.folder = folder, .capacity_bytes = static_cast<int64_t>(disk.capacity), .lock_wait = {}}, report);
}

absl::Status Verify(Tier& tier, const DataKey* key, const StorageCheck& check, StoredTier* stored) {
  Progress progress("verify", "bytes", stored->used_bytes, check.progress);
  std::vector<TierKey> damaged;
  absl::Status unread;
  PALIMPSEST_RETURN_IF_ERROR(
      VisitRocksDbTier(tier, [&](const TierKey& name, uint32_t parts, const absl::StatusOr<TierView>& value) {
        if (!value.ok() && value.status().code() != absl::StatusCode::kDataLoss) {
          unread = value.status();
          return false;
        }
        StoredTier::OfKind& kind = stored->kinds[static_cast<size_t>(name.kind)];
        ++kind.values;
        const int64_t bytes = value.ok() ? static_cast<int64_t>(value->bytes.size()) : 0;
        kind.bytes += bytes;
        const Found found = value.ok() ? Look(name, parts, *value, key) : Found::kDamaged;
        if (found == Found::kDamaged) damaged.push_back(name);
        if (found == Found::kSealedOtherwise) ++stored->sealed_otherwise;
        progress.Add(bytes);
        return !check.cancel->IsSet();
      }));
  PALIMPSEST_RETURN_IF_ERROR(unread);
  PALIMPSEST_RETURN_IF_ERROR(check.cancel->Check());
  progress.Done();
  for (const TierKey& name : damaged) {
    stored->damaged.push_back(name.ToString());
    tier.Erase(name).IgnoreError();
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredTier> CheckTier(const EngineOptions::Ssd& ssd, const std::string& folder,
                                     const StorageCheck& check) {
  RocksDbTierReport report;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Tier> tier, OpenToLook(folder, &report));
  StoredTier stored;
  stored.folder = folder;
  stored.capacity_bytes = ssd.bytes;
  stored.used_bytes = tier->Stats().used_bytes;
  stored.damaged_batches = report.damaged_batches;
  stored.moved_to = report.quarantined;
  if (!check.verify) {
    for (const TierEntry& entry : tier->List()) {
      StoredTier::OfKind& kind = stored.kinds[static_cast<size_t>(entry.key.kind)];
      ++kind.values;
      kind.bytes += entry.bytes;
    }
    return stored;
  }
  std::shared_ptr<DataKey> key;
  if (!ssd.key_file.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(key, DataKey::Load(ssd.key_file, ssd.folder + "/data.key"));
  }
  PALIMPSEST_RETURN_IF_ERROR(Verify(*tier, key.get(), check, &stored));
  return stored;
}

// A worker takes the first tier that no other has, so that one that was removed leaves a gap.
std::vector<int> TierNumbers(const std::string& folder) {
  std::vector<int> numbers;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    int number = 0;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), number);
    if (read.ec == std::errc() && number >= 0 && std::to_string(number) == name) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

absl::StatusOr<StoredDocuments> CountDocuments(const std::string& data_dir) {
  StoredDocuments stored;
  if (std::error_code error; !fs::exists(data_dir + "/catalog", error)) return stored;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Catalog> catalog, Catalog::Open(data_dir));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<DocumentInfo> documents, catalog->List());
  for (const DocumentInfo& document : documents) {
    ++stored.documents;
    stored.tokens += document.tokens;
    stored.text_bytes += document.bytes;
  }
  return stored;
}

absl::StatusOr<std::vector<StoredTier>> CheckStorage(const Config& config, const StorageCheck& check) {
  PALIMPSEST_ASSIGN_OR_RETURN(const EngineOptions options, StoringEngineOptionsOf(config));
  std::vector<StoredTier> tiers;
  for (const int number : TierNumbers(options.ssd.folder)) {
    const std::string folder = fmt::format("{}/{}", options.ssd.folder, number);
    PALIMPSEST_ASSIGN_OR_RETURN(StoredTier tier, CheckTier(options.ssd, folder, check));
    tiers.push_back(std::move(tier));
  }
  return tiers;
}

absl::Status StorageStatus(const std::vector<StoredTier>& tiers) {
  size_t damaged = 0;
  int64_t batches = 0, otherwise = 0, moved = 0;
  for (const StoredTier& tier : tiers) {
    damaged += tier.damaged.size();
    batches += tier.damaged_batches;
    otherwise += tier.sealed_otherwise;
    moved += tier.moved_to.empty() ? 0 : 1;
  }
  if (damaged > 0 || batches > 0 || moved > 0) {
    return DataLoss(
        "damaged: {} values and {} batches, which are dropped, and {} tiers, which are moved aside; what "
        "they held is computed again when it is asked for",
        damaged, batches, moved);
  }
  if (otherwise > 0) {
    return FailedPrecondition(
        "{} values are sealed with another key, or as ssd.encryption is not set now; they stay: verify them "
        "with the settings that wrote them",
        otherwise);
  }
  return absl::OkStatus();
}

std::string StorageText(const StoredDocuments& documents, const std::vector<StoredTier>& tiers,
                        bool verified) {
  std::string text = fmt::format("documents: {}, of {} tokens, {} of text\n", documents.documents,
                                 documents.tokens, ApproximateBytes(documents.text_bytes));
  if (tiers.empty()) return text + "no SSD tier is there yet: `palimpsest ingest` makes one\n";
  for (const StoredTier& tier : tiers) {
    text += fmt::format("{}: {} of {}\n", tier.folder, ApproximateBytes(tier.used_bytes),
                        ApproximateBytes(tier.capacity_bytes));
    for (size_t kind = 0; kind < tier.kinds.size(); ++kind) {
      text += fmt::format("  {:<6} {:>8} values {:>12}\n", NameOf(static_cast<ValueKind>(kind)),
                          tier.kinds[kind].values, ApproximateBytes(tier.kinds[kind].bytes));
    }
    for (const std::string& name : tier.damaged) text += fmt::format("  damaged, dropped: {}\n", name);
    if (tier.damaged_batches > 0)
      text += fmt::format("  damaged files, dropped: {} batches\n", tier.damaged_batches);
    if (!tier.moved_to.empty()) text += fmt::format("  damaged, moved to {}\n", tier.moved_to);
    if (tier.sealed_otherwise > 0)
      text += fmt::format("  sealed with another key or setting, kept: {} values\n", tier.sealed_otherwise);
    if (verified && tier.whole()) text += "  all of it is whole\n";
  }
  return text;
}

std::string StorageJson(const StoredDocuments& documents, const std::vector<StoredTier>& tiers,
                        bool verified) {
  json::array list;
  for (const StoredTier& tier : tiers) {
    json::object kinds;
    for (size_t kind = 0; kind < tier.kinds.size(); ++kind) {
      kinds[std::string(NameOf(static_cast<ValueKind>(kind)))] =
          json::object{{"values", tier.kinds[kind].values}, {"bytes", tier.kinds[kind].bytes}};
    }
    list.push_back(
        json::object{{"tier", "ssd"},
                     {"folder", tier.folder},
                     {"capacity_bytes", tier.capacity_bytes},
                     {"used_bytes", tier.used_bytes},
                     {"kinds", std::move(kinds)},
                     {"damaged", json::array(tier.damaged.begin(), tier.damaged.end())},
                     {"damaged_batches", tier.damaged_batches},
                     {"moved_to", tier.moved_to.empty() ? json::value() : json::value(tier.moved_to)},
                     {"sealed_otherwise", tier.sealed_otherwise}});
  }
  return PrintJson(json::object{
      {"verified", verified},
      {"documents",
       {{"count", documents.documents}, {"tokens", documents.tokens}, {"text_bytes", documents.text_bytes}}},
      {"tiers", std::move(list)}});
}

}  // namespace palimpsest
