#include "proto/rpc/rpc.h"

#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <charconv>
#include <fstream>
#include <system_error>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr size_t kSocketPathBytesMax = 107;  // of sockaddr_un, without the final zero
constexpr size_t kErrorBytesMax = 2048;      // of a message: trailing metadata is bounded at 8 KiB
constexpr std::streamsize kPemBytesMax = 1 << 20;
constexpr char kMark[] = "palimpsest-status";
// Threads that a server may have beside those of its calls: gRPC's pollers.
constexpr int64_t kSpareThreads = 4;

absl::StatusOr<std::string> ReadPem(const std::string& file, std::string_view key) {
  std::ifstream in(file, std::ios::binary);
  std::string text(kPemBytesMax, '\0');
  in.read(text.data(), kPemBytesMax);
  text.resize(static_cast<size_t>(in.gcount()));
  if (in.bad() || text.empty()) {
    return InvalidArgument("{}: file {} is not there, empty or not readable; give a PEM file", key,
                           Quoted(file, 4096));
  }
  return text;
}

struct Pem {
  std::string certificate, key, ca;
};

absl::StatusOr<Pem> ReadTls(const ClusterTls& tls) {
  Pem pem;
  PALIMPSEST_ASSIGN_OR_RETURN(pem.certificate, ReadPem(tls.certificate_file, "cluster.tls_certificate"));
  PALIMPSEST_ASSIGN_OR_RETURN(pem.key, ReadPem(tls.key_file, "cluster.tls_key"));
  PALIMPSEST_ASSIGN_OR_RETURN(pem.ca, ReadPem(tls.ca_file, "cluster.tls_ca"));
  return pem;
}

// Whether the connection is to be encrypted; an error where it must be and cannot.
absl::StatusOr<bool> NeedsTls(const RpcAddress& address, std::string_view text, std::string_view what,
                              const ClusterTls& tls) {
  if (address.unix_socket()) return false;
  const bool any = !tls.certificate_file.empty() || !tls.key_file.empty() || !tls.ca_file.empty();
  if (!any && address.loopback()) return false;
  if (!any) {
    return InvalidArgument(
        "{} is {}, which other machines reach: set cluster.tls_certificate, cluster.tls_key and "
        "cluster.tls_ca, or use "
        "127.0.0.1 or unix:PATH",
        what, Quoted(text, 256));
  }
  return true;
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentialsOf(const RpcAddress& address,
                                                                             std::string_view text,
                                                                             std::string_view what,
                                                                             const ClusterTls& tls) {
  PALIMPSEST_ASSIGN_OR_RETURN(const bool encrypted, NeedsTls(address, text, what, tls));
  if (!encrypted) return grpc::InsecureServerCredentials();
  PALIMPSEST_ASSIGN_OR_RETURN(const Pem pem, ReadTls(tls));
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = pem.ca;
  options.pem_key_cert_pairs.push_back({pem.key, pem.certificate});
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentialsOf(const RpcAddress& address,
                                                                               std::string_view text,
                                                                               std::string_view what,
                                                                               const ClusterTls& tls) {
  PALIMPSEST_ASSIGN_OR_RETURN(const bool encrypted, NeedsTls(address, text, what, tls));
  if (!encrypted) return grpc::InsecureChannelCredentials();
  PALIMPSEST_ASSIGN_OR_RETURN(const Pem pem, ReadTls(tls));
  return grpc::SslCredentials(
      {.pem_root_certs = pem.ca, .pem_private_key = pem.key, .pem_cert_chain = pem.certificate});
}

// What gRPC has to say goes into our log, in its form. At debug: what matters of it comes back as a status.
void LogOfGrpc(gpr_log_func_args* line) {
  PALIMPSEST_LOG(kDebug, "grpc severity {} message {}", static_cast<int>(line->severity),
                 LogName(line->message));
}
void TakeLogOfGrpc() {
  static const bool taken = [] {
    gpr_set_log_function(LogOfGrpc);
    return true;
  }();
  (void)taken;
}

int Millis(std::chrono::milliseconds duration) { return static_cast<int>(duration.count()); }

}  // namespace

bool RpcAddress::loopback() const {
  return unix_socket() || host == "localhost" || host == "::1" || host.starts_with("127.");
}

absl::StatusOr<RpcAddress> ParseRpcAddress(std::string_view address, std::string_view what) {
  RpcAddress parsed;
  if (address.starts_with(kUnix)) {
    parsed.path = address.substr(kUnix.size());
    if (!parsed.path.empty() && parsed.path.size() <= kSocketPathBytesMax) return parsed;
    return InvalidArgument("{}: the path of a Unix socket has 1 to {} bytes, this one {}", what,
                           kSocketPathBytesMax, parsed.path.size());
  }
  const size_t colon = address.rfind(':');
  std::string_view host = address.substr(0, colon == std::string_view::npos ? 0 : colon);
  const std::string_view port = colon == std::string_view::npos ? "" : address.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    host = "";  // an IPv6 address without brackets: which colon is the port's?
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  const bool number =
      error == std::errc() && end == port.data() + port.size() && parsed.port >= 0 && parsed.port <= 65535;
  // A host name that looks like 127.x but is not loopback must not pass for it.
  const bool plain = host.find_first_not_of(host.starts_with("127.") ? "0123456789."
                                                                     : "0123456789abcdefghijklmnopqrstuvwxyz"
                                                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%") ==
                     std::string_view::npos;
  if (host.empty() || !number || !plain) {
    return InvalidArgument("{}: {} is neither host:port ([::1]:9091 for IPv6) nor unix:PATH", what,
                           Quoted(address, 256));
  }
  parsed.host = host;
  return parsed;
}

absl::StatusOr<RpcServer> StartRpcServer(grpc::Service& service, const std::string& address,
                                         std::string_view what, const ClusterTls& tls, int64_t calls_max) {
  TakeLogOfGrpc();
  PALIMPSEST_ASSIGN_OR_RETURN(const RpcAddress parsed, ParseRpcAddress(address, what));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto credentials, ServerCredentialsOf(parsed, address, what, tls));
  grpc::ResourceQuota quota("palimpsest");
  quota.SetMaxThreads(static_cast<int>(calls_max + kSpareThreads));
  int port = 0;
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder.SetMaxReceiveMessageSize(static_cast<int>(kRpcMessageBytesMax));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // or a port in use would be shared in silence
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(kRpcKeepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(kRpcKeepalive));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddListeningPort(address, credentials, &port);
  builder.RegisterService(&service);
  RpcServer started{.server = builder.BuildAndStart(), .address = address};
  if (started.server == nullptr) {
    return Error(absl::StatusCode::kUnavailable,
                 "{}: cannot listen on {}: it is in use or not an address of this machine{}", what,
                 Quoted(address, 256),
                 tls.certificate_file.empty() ? "" : ", or the TLS files do not belong together");
  }
  if (parsed.unix_socket()) {
    if (::chmod(parsed.path.c_str(), 0600) != 0) {
      return Internal("{}: {}: {}", what, Quoted(address, 256), std::generic_category().message(errno));
    }
  } else {
    started.address = fmt::format("{}:{}", address.substr(0, address.rfind(':')), port);
  }
  return started;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeRpcChannel(const std::string& address,
                                                              std::string_view what, const ClusterTls& tls) {
  TakeLogOfGrpc();
  PALIMPSEST_ASSIGN_OR_RETURN(const RpcAddress parsed, ParseRpcAddress(address, what));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto credentials, ChannelCredentialsOf(parsed, address, what, tls));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(kRpcKeepalive));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(kRpcKeepalive));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // 0: as many as keepalive sends
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);  // the time limit of one attempt to connect
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                   1);                              // a new link must not inherit an old one's backoff
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // peers are named, never behind what http_proxy says
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kRpcMessageBytesMax));
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

grpc::Status ToRpc(const absl::Status& status, grpc::ServerContext& context) {
  if (status.ok()) return grpc::Status::OK;
  context.AddTrailingMetadata(kMark, "1");
  return {static_cast<grpc::StatusCode>(status.raw_code()), Message(status).substr(0, kErrorBytesMax)};
}

absl::Status FromRpc(const grpc::Status& status, const grpc::ClientContext& context, std::string_view peer) {
  if (status.ok()) return absl::OkStatus();
  // Both libraries number the sixteen codes alike.
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  const bool ours = context.GetServerTrailingMetadata().count(kMark) > 0;
  if (ours) return {code, status.error_message()};
  const std::string text = OneLine(status.error_message(), kErrorBytesMax);
  if (code == absl::StatusCode::kUnimplemented) {
    return Unimplemented("{} is not what was looked for there: {}", Quoted(peer, 256), text);
  }
  return Error(absl::StatusCode::kUnavailable, "{}: {}", OneLine(peer), text);
}

}  // namespace palimpsest
