// The key that encrypts what rests on disk.
//
// Two keys : the data key (256 bits, made at random when a tier is first opened) encrypts values; the
//            key file (another 256 bits) wraps the data key. Only the wrapped form lies beside the
//            values, so that a copy of the tier without the key file is noise, and destroying the key
//            file destroys the tier (SSDs do not overwrite in place, so there is no other way to
//            delete). storage/data_key_file.h has the files' layout.
// Cipher   : AES-256-GCM by OpenSSL. The wrapped key is bound to its number and format by the associated
//            data.
// Nonces   : 96 bits: 64 random bits, drawn when the key is loaded and after every 2^32 uses, and a
//            counter of 32. So no two messages under one key share a nonce, in this process or another,
//            but with a probability below (loads + uses / 2^32)^2 / 2^65. A forked child draws its own
//            64 bits.
// Secrets  : never in a log or an error; memory is wiped when the last owner is gone. What is kept ready for
//            the next message holds the key too, so core files are kept off for the whole process (main).
// Threads  : any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest {

class DataKey {
 public:
  using Nonce = std::array<uint8_t, 12>;
  using Tag = std::array<uint8_t, 16>;

  // A key of given bits (tests, golden files). `number` names it in envelopes; 0 is no key's number.
  // `first_nonce`, for golden files alone, is what NextNonce begins with; a program that seals two messages
  // with one nonce has given the key away.
  static std::shared_ptr<DataKey> FromBytes(std::span<const uint8_t, 32> key, uint32_t number,
                                            std::optional<Nonce> first_nonce = std::nullopt);

  // The data key of a tier: reads `wrapped_file`, or makes a key and a random number for it and writes them
  // there (0600, synced). The key file is read from `key_file`, or made (0600, missing folders 0700) if
  // neither file exists. Of several processes that make the same file one wins and the others use its key; a
  // crash leaves the whole file or none.
  // FailedPrecondition, each naming the file and what to do: the wrapped key is there and the key file is
  // not; the key file does not open it; the key file may be read or written by others than its owner (its
  // mode); a file of another format version, or that is a folder or a pipe. DataLoss: a file of another
  // length or form. PermissionDenied, Unavailable: the system's answer. InvalidArgument: an empty path.
  static absl::StatusOr<std::shared_ptr<DataKey>> Load(const std::string& key_file,
                                                       const std::string& wrapped_file);
  ~DataKey();
  DataKey(const DataKey&) = delete;
  DataKey& operator=(const DataKey&) = delete;

  uint32_t number() const { return number_; }
  Nonce NextNonce();
  // Encrypts in place and returns the tag over `associated` and the result. At most 1 GiB.
  Tag Encrypt(const Nonce& nonce, std::span<const uint8_t> associated, std::span<uint8_t> bytes) const;
  // Decrypts `from` into `to` (as long; may be the same). False: the tag does not fit, and `to` is zeroed.
  bool Decrypt(const Nonce& nonce, std::span<const uint8_t> associated, const Tag& tag,
               std::span<const uint8_t> from, std::span<uint8_t> to) const;
  // A key for something else, by HMAC of its purpose ("tenant domain", ...): tells nothing of this one.
  Hash256 Derive(std::string_view purpose) const;

 private:
  class Contexts;
  DataKey(std::span<const uint8_t, 32> key, uint32_t number, std::optional<Nonce> first_nonce);
  void DrawPrefix();  // with nonce_mu_ held, or nobody else there

  std::array<uint8_t, 32> key_;
  const uint32_t number_;
  const std::unique_ptr<Contexts> contexts_;  // has its own lock

  std::mutex nonce_mu_;  // guards what follows
  std::array<uint8_t, 8> prefix_{};
  uint64_t counter_ = 0;  // the next one; 2^32: the prefix is used up
  uint64_t forks_ = 0;    // of this process's line when the prefix was drawn
};

// Fills them from the library's generator for keys; aborts if it has none to give.
void RandomBytes(std::span<uint8_t> bytes);
// Overwrites in a way that the compiler may not drop.
void Wipe(std::span<uint8_t> bytes);

}  // namespace palimpsest
