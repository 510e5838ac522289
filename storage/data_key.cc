#include "storage/data_key.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr size_t kMessageBytesMax = 1 << 30;  // EVP counts in int
constexpr uint64_t kCounterEnd = 1ull << 32;

// How often the line of processes that leads here has forked: two of them with the same prefix and counter
// would use the same nonces.
uint64_t Forks() {
  static std::atomic<uint64_t> forks{0};
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  PALIMPSEST_CHECK(registered == 0, "pthread_atfork: {}", registered);
  return forks.load(std::memory_order_relaxed);
}

int Size(std::span<const uint8_t> bytes) {
  PALIMPSEST_CHECK(bytes.size() <= kMessageBytesMax, "message of {} bytes", bytes.size());
  return static_cast<int>(bytes.size());
}

}  // namespace

// Contexts with the key already in them: expanding it takes as long as encrypting some KiB. They are kept
// here and not by thread, so that nothing of the key outlives its last owner.
class DataKey::Contexts {
 public:
  // A context of one message; goes back at the end.
  class Lease {
   public:
    Lease(Contexts* owner, EVP_CIPHER_CTX* context) : owner_(owner), context_(context) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { owner_->Return(context_); }
    EVP_CIPHER_CTX* get() const { return context_; }

   private:
    Contexts* const owner_;
    EVP_CIPHER_CTX* const context_;
  };

  Contexts() = default;
  Contexts(const Contexts&) = delete;
  Contexts& operator=(const Contexts&) = delete;
  ~Contexts() {
    for (EVP_CIPHER_CTX* context : idle_) EVP_CIPHER_CTX_free(context);  // wipes it
  }

  Lease Take(const std::array<uint8_t, 32>& key) {
    {
      const std::lock_guard lock(mu_);
      if (!idle_.empty()) {
        EVP_CIPHER_CTX* context = idle_.back();
        idle_.pop_back();
        return {this, context};
      }
    }
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    PALIMPSEST_CHECK(context != nullptr, "out of memory");
    PALIMPSEST_CHECK(EVP_EncryptInit_ex2(context, EVP_aes_256_gcm(), key.data(), /*iv=*/nullptr, nullptr) ==
                     1);
    return {this, context};
  }

 private:
  void Return(EVP_CIPHER_CTX* context) {
    const std::lock_guard lock(mu_);
    idle_.push_back(context);
  }

  std::mutex mu_;                      // guards what follows
  std::vector<EVP_CIPHER_CTX*> idle_;  // at most as many as threads ever met here
};

DataKey::DataKey(std::span<const uint8_t, 32> key, uint32_t number, std::optional<Nonce> first_nonce)
    : number_(number), contexts_(std::make_unique<Contexts>()) {
  PALIMPSEST_CHECK(number != 0, "a key's number is never 0");
  std::copy(key.begin(), key.end(), key_.begin());
  DrawPrefix();
  if (!first_nonce) return;
  std::copy_n(first_nonce->begin(), prefix_.size(), prefix_.begin());
  for (size_t i = 0; i < 4; ++i) counter_ |= static_cast<uint64_t>((*first_nonce)[8 + i]) << (8 * i);
}

DataKey::~DataKey() { Wipe(key_); }

std::shared_ptr<DataKey> DataKey::FromBytes(std::span<const uint8_t, 32> key, uint32_t number,
                                            std::optional<Nonce> first_nonce) {
  return std::shared_ptr<DataKey>(new DataKey(key, number, first_nonce));
}

void DataKey::DrawPrefix() {
  forks_ = Forks();
  counter_ = 0;
  RandomBytes(prefix_);
}

DataKey::Nonce DataKey::NextNonce() {
  const std::lock_guard lock(nonce_mu_);
  if (counter_ == kCounterEnd || forks_ != Forks()) DrawPrefix();
  Nonce nonce;
  std::copy(prefix_.begin(), prefix_.end(), nonce.begin());
  for (size_t i = 0; i < 4; ++i) nonce[8 + i] = static_cast<uint8_t>(counter_ >> (8 * i));
  ++counter_;
  return nonce;
}

DataKey::Tag DataKey::Encrypt(const Nonce& nonce, std::span<const uint8_t> associated,
                              std::span<uint8_t> bytes) const {
  const Contexts::Lease lease = contexts_->Take(key_);
  EVP_CIPHER_CTX* context = lease.get();
  int written = 0;
  Tag tag;
  const bool done =
      EVP_EncryptInit_ex2(context, nullptr, nullptr, nonce.data(), nullptr) == 1 &&
      EVP_EncryptUpdate(context, nullptr, &written, associated.data(), Size(associated)) == 1 &&
      (bytes.empty() || EVP_EncryptUpdate(context, bytes.data(), &written, bytes.data(), Size(bytes)) == 1) &&
      EVP_EncryptFinal_ex(context, nullptr, &written) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag.size()), tag.data()) == 1;
  PALIMPSEST_CHECK(done, "AES-256-GCM refused {} bytes", bytes.size());
  return tag;
}

bool DataKey::Decrypt(const Nonce& nonce, std::span<const uint8_t> associated, const Tag& tag,
                      std::span<const uint8_t> from, std::span<uint8_t> to) const {
  PALIMPSEST_CHECK(from.size() == to.size(), "{} bytes into {}", from.size(), to.size());
  const Contexts::Lease lease = contexts_->Take(key_);
  EVP_CIPHER_CTX* context = lease.get();
  int written = 0;
  Tag expected = tag;  // the library takes no pointer to const
  const bool ready =
      EVP_DecryptInit_ex2(context, nullptr, nullptr, nonce.data(), nullptr) == 1 &&
      EVP_DecryptUpdate(context, nullptr, &written, associated.data(), Size(associated)) == 1 &&
      (from.empty() || EVP_DecryptUpdate(context, to.data(), &written, from.data(), Size(from)) == 1) &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(expected.size()),
                          expected.data()) == 1;
  PALIMPSEST_CHECK(ready, "AES-256-GCM refused {} bytes", from.size());
  const bool fits = EVP_DecryptFinal_ex(context, nullptr, &written) == 1;
  if (!fits && !to.empty()) std::memset(to.data(), 0, to.size());
  return fits;
}

Hash256 DataKey::Derive(std::string_view purpose) const {
  return HmacSha256({reinterpret_cast<const char*>(key_.data()), key_.size()}, purpose);
}

void RandomBytes(std::span<uint8_t> bytes) {
  PALIMPSEST_CHECK(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1, "no random bytes");
}

void Wipe(std::span<uint8_t> bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

}  // namespace palimpsest
