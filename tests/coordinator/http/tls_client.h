// A blocking TLS client that trusts everybody, and certificates for tests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

struct ssl_ctx_st;
struct ssl_st;

namespace palimpsest::http {

// A self-signed certificate with this common name, and its key, as PEM files.
void MakeCertificate(const std::string& name, const std::string& certificate_file,
                     const std::string& key_file);

class TlsClient {
 public:
  explicit TlsClient(int64_t port);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  const std::string& certificate_name() const { return name_; }  // "" if there was no handshake
  bool Send(std::string_view bytes);
  // Sends, and reads until the answer ends in `end`, or to the end of the connection.
  std::string Ask(std::string_view request, std::string_view end);
  bool ended_properly() const { return ended_properly_; }  // with TLS' own goodbye

 private:
  int fd_;
  ssl_ctx_st* context_;
  ssl_st* ssl_;
  std::string name_;
  bool ended_properly_ = false;
};

}  // namespace palimpsest::http
