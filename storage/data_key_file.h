// The two files that hold a tier's keys (DataKey::Load): their bytes, and how they come onto a disk.
//
// Little-endian. Key file, 64 bytes:             Wrapped key, 96 bytes:
//    0  8  magic "PLMPSKEY"                         0  8  magic "PLMPSWRP"
//    8  2  version (1)                              8  2  version (1)
//   10  6  0                                       10  2  0
//   16 32  the key that wraps                      12  4  number of the data key, not 0
//   48 16  checksum over bytes [0, 48)             16 12  nonce, at random
//                                                  28  4  0
//                                                  32 32  the data key, encrypted
// Checksum: the first 16 bytes of SHA-256. It      64 16  AES-256-GCM's tag, bytes [0, 32) associated
// tells damage from a key that does not fit.       80 16  checksum over bytes [0, 80)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "storage/data_key.h"

namespace palimpsest {

inline constexpr size_t kKeyFileBytes = 64, kWrappedKeyBytes = 96;
inline constexpr uint16_t kKeyFilesVersion = 1;

// Bytes that are wiped when they go.
template <size_t kSize>
struct Secret {
  std::array<uint8_t, kSize> bytes{};
  Secret() = default;
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret() { Wipe(bytes); }
};
using KeyBytes = Secret<32>;

Secret<kKeyFileBytes> FormatKeyFile(const KeyBytes& key);
std::array<uint8_t, kWrappedKeyBytes> WrapKey(const KeyBytes& data_key, uint32_t number, const KeyBytes& key,
                                              const DataKey::Nonce& nonce);

// Both take any bytes. Their messages begin after the file's name: "is cut short: 3 of 64 bytes".
// DataLoss: another length or form, or altered. FailedPrecondition: another version; wrapped by another key.
absl::StatusOr<KeyBytes> ParseKeyFile(std::span<const uint8_t> bytes);
absl::StatusOr<std::shared_ptr<DataKey>> ParseWrappedKey(std::span<const uint8_t> bytes, const KeyBytes& key);

// The first bytes of a file that should be small: enough for both forms and for seeing that it goes on.
struct SmallFile {
  Secret<kWrappedKeyBytes + 1> content;
  size_t size = 0;
  std::span<const uint8_t> bytes() const { return std::span(content.bytes).first(size); }
};

// nullopt: there is none. FailedPrecondition: no regular file, or (`owner_only`) its mode lets others read or
// write it. PermissionDenied, Unavailable: the system's answer.
absl::StatusOr<std::optional<SmallFile>> ReadSmallFile(const std::string& path, bool owner_only);

// Makes a file (0600) with missing folders (0700), wholly and durably. If there is one already, it stays.
absl::Status MakeSmallFile(const std::string& path, std::span<const uint8_t> bytes);

// So that what the folder of `path` names survives a loss of power.
absl::Status SyncFolderOf(const std::string& path);

}  // namespace palimpsest
