// API keys: who may ask, and how much. Read from a file that holds no key, only their SHA-256; read again
// when the file changes, keeping the old ones if the new file is wrong (and saying so in the log).
//
//   keys:
//     - name: team-a                 # for people and logs
//       sha256: 9f86d0...            # of the key; `palimpsest serve --make-key` prints a new pair
//       tenant: team-a               # whose documents and cache it sees; default: name
//       expires: 2027-01-31          # its last day, UTC; optional
//       concurrent: 8                # requests at once, optional
//       requests_per_minute: 600     # optional; a minute's worth may come at once
//
// Errors : Load: InvalidArgument naming file, line and what is wrong. Check: PermissionDenied (unknown,
//          expired: the same text), ResourceExhausted with RetryAfter (quota). Compared in constant time.
//          Keys are never logged.
// Threads: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/base/clock.h"

namespace palimpsest::http {

class ApiKeys {
 public:
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Load(const std::string& file,
                                                       const Clock& clock = RealClock());
  virtual ~ApiKeys() = default;

  // Counts against the key's quotas while it lives.
  class Grant {
   public:
    virtual ~Grant() = default;
    virtual const std::string& tenant() const = 0;
    virtual const std::string& name() const = 0;
  };
  // `authorization` is the header's value: "Bearer KEY".
  virtual absl::StatusOr<std::unique_ptr<Grant>> Check(std::string_view authorization) const = 0;
  // Looks at the file's time and reads it again if it changed. The server calls it once a second.
  virtual void Refresh() = 0;
};

// A new key (256 random bits, "plm-" and hex) and the lines for the file.
struct NewKey {
  std::string key, entry;
};
NewKey MakeKey(std::string_view name);

}  // namespace palimpsest::http
