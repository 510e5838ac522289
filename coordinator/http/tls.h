// The server's certificate and key, as OpenSSL keeps them. A connection holds what it began with; a new one
// takes what is current.
//
// Errors : InvalidArgument naming the setting, the file and what to do.
// Threads: any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct ssl_ctx_st;

namespace palimpsest::http {

class TlsContext {
 public:
  static absl::StatusOr<std::shared_ptr<TlsContext>> Load(const std::string& certificate_file,
                                                          const std::string& key_file);
  virtual ~TlsContext() = default;
  virtual ssl_ctx_st* native() = 0;
};

}  // namespace palimpsest::http
