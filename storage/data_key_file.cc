#include "storage/data_key_file.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/little_endian.h"

namespace palimpsest {
namespace {

using Magic = std::array<uint8_t, 8>;
constexpr Magic kKeyMagic = {'P', 'L', 'M', 'P', 'S', 'K', 'E', 'Y'};
constexpr Magic kWrappedMagic = {'P', 'L', 'M', 'P', 'S', 'W', 'R', 'P'};
constexpr size_t kVersionAt = 8, kChecksumBytes = 16;
constexpr size_t kKeyZeroAt = 10, kKeyAt = 16;
constexpr size_t kNumberAt = 12, kNonceAt = 16, kWrappedZeroAt = 28, kWrappedAt = 32, kTagAt = 64;
static_assert(kKeyAt + 32 + kChecksumBytes == kKeyFileBytes);
static_assert(kTagAt + 16 + kChecksumBytes == kWrappedKeyBytes);

// The wrapping key's own number, which stands in no file: the wrapped key says which key it is, not by which.
constexpr uint32_t kWrappingNumber = 1;

std::array<uint8_t, kChecksumBytes> Checksum(std::span<const uint8_t> bytes) {
  Hash256 hash = Sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::array<uint8_t, kChecksumBytes> checksum;
  std::copy_n(hash.bytes.begin(), checksum.size(), checksum.begin());
  return checksum;
}

void Begin(std::span<uint8_t> bytes, const Magic& magic) {
  std::copy(magic.begin(), magic.end(), bytes.begin());
  StoreLittleEndian(bytes.data() + kVersionAt, kKeyFilesVersion);
}

void End(std::span<uint8_t> bytes) {
  const std::span<uint8_t> covered = bytes.first(bytes.size() - kChecksumBytes);
  const auto checksum = Checksum(covered);
  std::copy(checksum.begin(), checksum.end(), bytes.begin() + static_cast<std::ptrdiff_t>(covered.size()));
}

bool IsZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// What both forms have in common. `what`: "key file". The version says how long the rest is, so it is
// believed first.
absl::Status CheckForm(std::span<const uint8_t> bytes, const Magic& magic, size_t size,
                       std::string_view what) {
  const size_t known = std::min(bytes.size(), magic.size());
  if (!std::equal(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(known), magic.begin()))
    return DataLoss("is no {}: it begins with other bytes", what);
  if (bytes.size() >= kVersionAt + 2) {
    const auto version = LoadLittleEndian<uint16_t>(bytes.data() + kVersionAt);
    if (version != kKeyFilesVersion) {
      return FailedPrecondition("is a {} of version {}: this build reads version {}", what, version,
                                kKeyFilesVersion);
    }
  }
  if (bytes.size() < size)
    return DataLoss("is cut short: {} of the {} bytes of a {}", bytes.size(), size, what);
  if (bytes.size() > size) return DataLoss("goes on after the {} bytes of a {}", size, what);
  const auto checksum = Checksum(bytes.first(size - kChecksumBytes));
  if (!std::equal(checksum.begin(), checksum.end(), bytes.end() - kChecksumBytes))
    return DataLoss("is damaged: its checksum does not fit");
  return absl::OkStatus();
}

// `error`, worded by one of the parsers, of the file at `path`.
absl::Status Of(const std::string& path, const absl::Status& error, std::string_view advice) {
  return Error(error.code(), "{} {}; {}", Quoted(path, 4096), Message(error), advice);
}

absl::StatusOr<std::optional<KeyBytes>> ReadKeyFile(const std::string& path) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::optional<SmallFile> file, ReadSmallFile(path, /*owner_only=*/true));
  if (!file) return std::nullopt;
  absl::StatusOr<KeyBytes> key = ParseKeyFile(file->bytes());
  if (!key.ok()) return Of(path, key.status(), "restore the key file from a copy");
  return *key;
}

absl::Status MakeKeyFile(const std::string& path) {
  KeyBytes key;
  RandomBytes(key.bytes);
  return MakeSmallFile(path, FormatKeyFile(key).bytes);
}

absl::Status MakeWrappedKey(const std::string& path, const KeyBytes& key) {
  KeyBytes data_key;
  RandomBytes(data_key.bytes);
  // At random, so that values of a key that was thrown away are told from damaged ones.
  std::array<uint8_t, 4> number{};
  while (IsZero(number)) RandomBytes(number);
  DataKey::Nonce nonce;
  RandomBytes(nonce);
  return MakeSmallFile(path, WrapKey(data_key, LoadLittleEndian<uint32_t>(number.data()), key, nonce));
}

// After a file was made, by us or by another, it is there.
absl::Status Vanished(const std::string& path) {
  return FailedPrecondition("{} is a link that leads nowhere, or is being removed; remove the link",
                            Quoted(path, 4096));
}

}  // namespace

Secret<kKeyFileBytes> FormatKeyFile(const KeyBytes& key) {
  Secret<kKeyFileBytes> file;
  Begin(file.bytes, kKeyMagic);
  std::copy(key.bytes.begin(), key.bytes.end(), file.bytes.begin() + kKeyAt);
  End(file.bytes);
  return file;
}

absl::StatusOr<KeyBytes> ParseKeyFile(std::span<const uint8_t> bytes) {
  PALIMPSEST_RETURN_IF_ERROR(CheckForm(bytes, kKeyMagic, kKeyFileBytes, "key file"));
  if (!IsZero(bytes.subspan(kKeyZeroAt, kKeyAt - kKeyZeroAt)))
    return DataLoss("has fields outside their limits");
  KeyBytes key;
  std::copy_n(bytes.begin() + kKeyAt, key.bytes.size(), key.bytes.begin());
  return key;
}

std::array<uint8_t, kWrappedKeyBytes> WrapKey(const KeyBytes& data_key, uint32_t number, const KeyBytes& key,
                                              const DataKey::Nonce& nonce) {
  std::array<uint8_t, kWrappedKeyBytes> file{};
  const std::span<uint8_t> bytes = file;
  Begin(bytes, kWrappedMagic);
  StoreLittleEndian(bytes.data() + kNumberAt, number);
  std::copy(nonce.begin(), nonce.end(), bytes.begin() + kNonceAt);
  std::copy(data_key.bytes.begin(), data_key.bytes.end(), bytes.begin() + kWrappedAt);
  const DataKey::Tag tag = DataKey::FromBytes(key.bytes, kWrappingNumber)
                               ->Encrypt(nonce, bytes.first(kWrappedAt), bytes.subspan(kWrappedAt, 32));
  std::copy(tag.begin(), tag.end(), bytes.begin() + kTagAt);
  End(bytes);
  return file;
}

absl::StatusOr<std::shared_ptr<DataKey>> ParseWrappedKey(std::span<const uint8_t> bytes,
                                                         const KeyBytes& key) {
  PALIMPSEST_RETURN_IF_ERROR(CheckForm(bytes, kWrappedMagic, kWrappedKeyBytes, "wrapped key"));
  const auto number = LoadLittleEndian<uint32_t>(bytes.data() + kNumberAt);
  if (number == 0 || !IsZero(bytes.subspan(10, 2)) || !IsZero(bytes.subspan(kWrappedZeroAt, 4)))
    return DataLoss("has fields outside their limits");
  DataKey::Nonce nonce;
  DataKey::Tag tag;
  std::copy_n(bytes.begin() + kNonceAt, nonce.size(), nonce.begin());
  std::copy_n(bytes.begin() + kTagAt, tag.size(), tag.begin());
  KeyBytes data_key;
  if (!DataKey::FromBytes(key.bytes, kWrappingNumber)
           ->Decrypt(nonce, bytes.first(kWrappedAt), tag, bytes.subspan(kWrappedAt, 32), data_key.bytes)) {
    return FailedPrecondition("is wrapped by another key");
  }
  return DataKey::FromBytes(data_key.bytes, number);
}

absl::StatusOr<std::shared_ptr<DataKey>> DataKey::Load(const std::string& key_file,
                                                       const std::string& wrapped_file) {
  if (key_file.empty() || wrapped_file.empty()) return InvalidArgument("a key file without a name");
  // In this order: who sees a wrapped key also sees the key file that was there before it.
  PALIMPSEST_ASSIGN_OR_RETURN(std::optional<SmallFile> wrapped,
                              ReadSmallFile(wrapped_file, /*owner_only=*/false));
  PALIMPSEST_ASSIGN_OR_RETURN(std::optional<KeyBytes> key, ReadKeyFile(key_file));
  const std::string start_anew =
      fmt::format("restore the key file {}, or remove {}: what was stored under it is computed again",
                  Quoted(key_file, 4096), Quoted(wrapped_file, 4096));
  if (wrapped && !key) {
    return FailedPrecondition("{} needs its key file, which is not there; {}", Quoted(wrapped_file, 4096),
                              start_anew);
  }
  if (!key) {
    PALIMPSEST_RETURN_IF_ERROR(MakeKeyFile(key_file));
    PALIMPSEST_ASSIGN_OR_RETURN(key, ReadKeyFile(key_file));
    if (!key) return Vanished(key_file);
  }
  if (!wrapped) {
    // Who made the key file may have died before this; where the folder cannot be opened, it was made by
    // hand.
    SyncFolderOf(key_file).IgnoreError();
    PALIMPSEST_RETURN_IF_ERROR(MakeWrappedKey(wrapped_file, *key));
    PALIMPSEST_ASSIGN_OR_RETURN(wrapped, ReadSmallFile(wrapped_file, /*owner_only=*/false));
    if (!wrapped) return Vanished(wrapped_file);
  }
  absl::StatusOr<std::shared_ptr<DataKey>> data_key = ParseWrappedKey(wrapped->bytes(), *key);
  if (!data_key.ok()) return Of(wrapped_file, data_key.status(), start_anew);
  return data_key;
}

}  // namespace palimpsest
