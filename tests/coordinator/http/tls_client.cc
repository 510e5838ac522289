#include "tests/coordinator/http/tls_client.h"

#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "proto/base/status.h"

namespace palimpsest::http {

void MakeCertificate(const std::string& name, const std::string& certificate_file,
                     const std::string& key_file) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = X509_new();
  PALIMPSEST_CHECK(key != nullptr && certificate != nullptr);
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 24 * 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* const subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  PALIMPSEST_CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
  std::FILE* const certificate_out = std::fopen(certificate_file.c_str(), "wb");
  std::FILE* const key_out = std::fopen(key_file.c_str(), "wb");
  PALIMPSEST_CHECK(certificate_out != nullptr && key_out != nullptr);
  PEM_write_X509(certificate_out, certificate);
  PEM_write_PrivateKey(key_out, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(certificate_out);
  std::fclose(key_out);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

TlsClient::TlsClient(int64_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const timeval limit{20, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  PALIMPSEST_CHECK(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  context_ = SSL_CTX_new(TLS_client_method());
  ssl_ = SSL_new(context_);
  SSL_set_fd(ssl_, fd_);
  if (SSL_connect(ssl_) != 1) return;
  X509* const certificate = SSL_get1_peer_certificate(ssl_);
  std::array<char, 256> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name.data(), name.size());
  X509_free(certificate);
  name_ = name.data();
}

TlsClient::~TlsClient() {
  SSL_free(ssl_);
  SSL_CTX_free(context_);
  ::close(fd_);
}

bool TlsClient::Send(std::string_view bytes) {
  return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
}

std::string TlsClient::Ask(std::string_view request, std::string_view end) {
  std::string answer;
  if (!Send(request)) return answer;
  std::array<char, 16 << 10> bytes;
  while (end.empty() || !answer.ends_with(end)) {
    const int got = SSL_read(ssl_, bytes.data(), bytes.size());
    if (got <= 0) {
      ended_properly_ = SSL_get_error(ssl_, got) == SSL_ERROR_ZERO_RETURN;
      break;
    }
    answer.append(bytes.data(), static_cast<size_t>(got));
  }
  return answer;
}

}  // namespace palimpsest::http
