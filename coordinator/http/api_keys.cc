#include "coordinator/http/api_keys.h"

#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "coordinator/http/api_keys_file.h"
#include "coordinator/http/file_stamp.h"
#include "proto/base/ids.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

void WarnIfOthersMayWrite(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0 || (info.st_mode & 022) == 0) return;
  PALIMPSEST_LOG(kWarn, "API keys {} may be written by others; run chmod go-w on it", LogName(file));
}

// The time it takes does not tell how many bytes are right.
bool SameInConstantTime(const Hash256& a, const Hash256& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.bytes.size(); ++i) difference |= static_cast<unsigned>(a.bytes[i] ^ b.bytes[i]);
  return difference == 0;
}

// What a key has used. Outlives a reload of the file: a changed line does not give the quota back.
struct Usage {
  std::mutex mu;
  int64_t in_work = 0;    // guarded by mu, as all below
  double allowance = -1;  // requests that may begin now; -1: none has yet
  TimePoint counted;      // when it was
};

struct Key {
  ApiKeyEntry entry;
  std::shared_ptr<Usage> usage;  // shared with grants and with the same key of the file read next
};
using Keys = std::vector<Key>;

class UsageGrant final : public ApiKeys::Grant {
 public:
  UsageGrant(const ApiKeyEntry& entry, std::shared_ptr<Usage> usage)
      : tenant_(entry.tenant), name_(entry.name), usage_(std::move(usage)) {}
  ~UsageGrant() override {
    std::lock_guard<std::mutex> lock(usage_->mu);
    --usage_->in_work;
  }
  const std::string& tenant() const override { return tenant_; }
  const std::string& name() const override { return name_; }

 private:
  const std::string tenant_, name_;
  const std::shared_ptr<Usage> usage_;
};

// Takes one request from the key's quotas. A minute's requests may come at once, then one by one.
absl::Status Use(const Key& key, TimePoint now) {
  const ApiKeyEntry& entry = key.entry;
  std::lock_guard<std::mutex> lock(key.usage->mu);
  Usage& usage = *key.usage;
  if (entry.concurrent > 0 && usage.in_work >= entry.concurrent) {
    return WithRetryAfter(ResourceExhausted("the API key {} has {} requests in work, its `concurrent` is {}; "
                                            "come again in 1 s",
                                            Quoted(entry.name), usage.in_work, entry.concurrent),
                          1);
  }
  if (entry.requests_per_minute > 0) {
    const double rate = static_cast<double>(entry.requests_per_minute);
    const double gained = usage.allowance < 0 ? rate : Seconds(now - usage.counted) * rate / 60;
    usage.allowance = std::min(rate, std::max(usage.allowance, 0.0) + gained);
    usage.counted = now;
    if (usage.allowance < 1) {
      const double wait = std::ceil((1 - usage.allowance) * 60 / rate);
      const int64_t seconds = std::max<int64_t>(1, static_cast<int64_t>(wait));
      return WithRetryAfter(ResourceExhausted("the API key {} may ask {} times a minute, its "
                                              "`requests_per_minute`; come again in {} s",
                                              Quoted(entry.name), entry.requests_per_minute, seconds),
                            seconds);
    }
    usage.allowance -= 1;
  }
  ++usage.in_work;
  return absl::OkStatus();
}

// The KEY of "Bearer KEY"; nullopt for any other form.
std::optional<std::string_view> BearerKey(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() || authorization.size() > 4096) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kScheme[i]) return std::nullopt;
  }
  std::string_view key = authorization.substr(kScheme.size());
  while (key.starts_with(' ')) key.remove_prefix(1);
  return key;
}

class FileKeys final : public ApiKeys {
 public:
  FileKeys(std::string file, const Clock& clock) : file_(std::move(file)), clock_(clock) {}

  absl::Status Read() {
    const FileStamp stamp = StampOf(file_);
    PALIMPSEST_ASSIGN_OR_RETURN(std::vector<ApiKeyEntry> entries, ReadApiKeysFile(file_));
    WarnIfOthersMayWrite(file_);
    Keys keys;
    std::lock_guard<std::mutex> lock(mu_);
    for (ApiKeyEntry& entry : entries) {
      std::shared_ptr<Usage>& usage = usages_[entry.hash.ToHex()];
      if (usage == nullptr) usage = std::make_shared<Usage>();
      keys.push_back({std::move(entry), usage});
    }
    keys_ = std::make_shared<const Keys>(std::move(keys));
    stamp_ = stamp;
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Grant>> Check(std::string_view authorization) const override {
    const auto text = BearerKey(authorization);
    const Hash256 hash = Sha256(text.value_or(""));
    std::shared_ptr<const Keys> keys;
    {
      std::lock_guard<std::mutex> lock(mu_);
      keys = keys_;
    }
    const Key* found = nullptr;
    for (const Key& key : *keys) {  // all of them: see SameInConstantTime
      if (SameInConstantTime(key.entry.hash, hash)) found = &key;
    }
    constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
    const bool expired = found != nullptr && clock_.UnixMillis() / 1000 >=
                                                 found->entry.expired_from_unix_seconds.value_or(kNever);
    if (!text || found == nullptr || expired) {
      return Error(
          absl::StatusCode::kPermissionDenied,
          "the API key is not valid here: ask the operator for one, and send 'Authorization: Bearer KEY'");
    }
    PALIMPSEST_RETURN_IF_ERROR(Use(*found, clock_.Now()));
    return std::unique_ptr<Grant>(std::make_unique<UsageGrant>(found->entry, found->usage));
  }

  void Refresh() override {
    const FileStamp stamp = StampOf(file_);
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (stamp == stamp_) return;
      stamp_ = stamp;  // a file that is wrong is reported once, not once a second
    }
    const absl::Status status = Read();
    if (status.ok()) {
      PALIMPSEST_LOG(kInfo, "API keys {} were read again", LogName(file_));
    } else {
      PALIMPSEST_LOG(kWarn, "the API keys changed and are kept as they were: {}", status);
    }
  }

 private:
  const std::string file_;
  const Clock& clock_;
  mutable std::mutex mu_;
  std::shared_ptr<const Keys> keys_;                      // guarded by mu_, as all below; shared with checks
  std::map<std::string, std::shared_ptr<Usage>> usages_;  // by hash
  FileStamp stamp_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Load(const std::string& file, const Clock& clock) {
  auto keys = std::make_unique<FileKeys>(file, clock);
  PALIMPSEST_RETURN_IF_ERROR(keys->Read());
  return std::unique_ptr<ApiKeys>(std::move(keys));
}

NewKey MakeKey(std::string_view name) {
  Hash256 random;
  PALIMPSEST_CHECK(
      ::getrandom(random.bytes.data(), random.bytes.size(), 0) == static_cast<ssize_t>(random.bytes.size()),
      "the system gave no random bytes");
  const std::string key = "plm-" + random.ToHex();
  std::string quoted;  // YAML's single quotes double their own kind
  for (const char c : OneLine(name, 128)) quoted.append(c == '\'' ? 2 : 1, c);
  return {key, fmt::format("  - name: '{}'\n    sha256: {}\n", quoted, Sha256(key).ToHex())};
}

}  // namespace palimpsest::http
