#include <boost/asio/ssl/context.hpp>

#include "coordinator/http/tls.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace ssl = boost::asio::ssl;

class AsioTlsContext final : public TlsContext {
 public:
  ssl_ctx_st* native() override { return context.native_handle(); }
  ssl::context context{ssl::context::tls_server};
};

absl::Status FileError(std::string_view key, const std::string& file,
                       const boost::system::error_code& error) {
  return InvalidArgument("{}: {}: {}; it must be a readable PEM file", key, Quoted(file, 4096),
                         OneLine(error.message()));
}

}  // namespace

absl::StatusOr<std::shared_ptr<TlsContext>> TlsContext::Load(const std::string& certificate_file,
                                                             const std::string& key_file) {
  if (certificate_file.empty() || key_file.empty()) {
    return InvalidArgument("{} is set and {} is not: HTTPS needs both (leave both empty for HTTP)",
                           certificate_file.empty() ? "server.tls_key" : "server.tls_certificate",
                           certificate_file.empty() ? "server.tls_certificate" : "server.tls_key");
  }
  auto made = std::make_shared<AsioTlsContext>();
  boost::system::error_code error;
  made->context.set_options(ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 | ssl::context::no_compression |
                                ssl::context::single_dh_use,
                            error);
  // A key with a password would make OpenSSL ask for it on the terminal: refuse it instead.
  made->context.set_password_callback([](size_t, ssl::context::password_purpose) { return std::string(); },
                                      error);
  made->context.use_certificate_chain_file(certificate_file, error);
  if (error) return FileError("server.tls_certificate", certificate_file, error);
  made->context.use_private_key_file(key_file, ssl::context::pem, error);
  if (error) return FileError("server.tls_key", key_file, error);
  if (::SSL_CTX_check_private_key(made->native()) != 1) {
    return InvalidArgument("server.tls_key: {} is not the key of the certificate {}", Quoted(key_file, 4096),
                           Quoted(certificate_file, 4096));
  }
  return std::shared_ptr<TlsContext>(std::move(made));
}

}  // namespace palimpsest::http
