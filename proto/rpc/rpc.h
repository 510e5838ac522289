// What both ends of a gRPC call share: addresses, credentials, keepalive, and the one mapping of status
// codes. The header knows gRPC by name only: what includes it pays nothing for the library.
//
// Addresses: "unix:/path" (whoever may open the socket is trusted: it is made for its owner only), or
//            "host:port". Beyond loopback both ends must show a certificate of the cluster's CA; a port
//            without it refuses to open.
// Errors   : A status of ours crosses the wire with a mark in the trailing metadata. What comes without it
//            was made by the transport and is Unavailable, whatever gRPC calls it: the peer died, is
//            stopping, or was never there.
// Bounds   : a message has at most kRpcMessageBytesMax; a dead TCP peer is noticed after kRpcKeepalive
//            twice, a closed connection at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace grpc {
class Channel;
class ClientContext;
class Server;
class ServerContext;
class Service;
class Status;
}  // namespace grpc

namespace palimpsest {

// A prompt goes to a worker in one message: 3 bytes or fewer for each token, so some 20 million of them.
inline constexpr int64_t kRpcMessageBytesMax = int64_t{64} << 20;
inline constexpr auto kRpcKeepalive = std::chrono::seconds(2);

// PEM files; all empty: no TLS (Unix sockets and loopback only).
struct ClusterTls {
  std::string certificate_file, key_file, ca_file;
};

struct RpcAddress {
  std::string host;  // without brackets; empty: a Unix socket
  int64_t port = 0;  // 0: any free one
  std::string path;  // of a Unix socket
  bool unix_socket() const { return host.empty(); }
  bool loopback() const;  // only this machine reaches it
};
// InvalidArgument naming `what` (a setting) and the address.
absl::StatusOr<RpcAddress> ParseRpcAddress(std::string_view address, std::string_view what);

struct RpcServer {
  std::unique_ptr<grpc::Server> server;
  std::string address;  // as clients name it, with the port it got
};
// Serves `service` with at most `calls_max` calls at once, each on a thread of its own. Unavailable: the
// address is in use. `what` is the setting that holds the address.
absl::StatusOr<RpcServer> StartRpcServer(grpc::Service& service, const std::string& address,
                                         std::string_view what, const ClusterTls& tls, int64_t calls_max);

// Connects when first used, and again after a failure; shares its connection with no other channel.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeRpcChannel(const std::string& address,
                                                              std::string_view what, const ClusterTls& tls);

// A server's answer, and what its client makes of it. `peer` is the address, for errors.
grpc::Status ToRpc(const absl::Status& status, grpc::ServerContext& context);
absl::Status FromRpc(const grpc::Status& status, const grpc::ClientContext& context, std::string_view peer);

}  // namespace palimpsest
