// Mutual TLS: who may connect to a worker, and where one may listen at all.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "coordinator/worker_link.h"
#include "proto/worker.grpc.pb.h"
#include "tests/testing/temporary_folder.h"
#include "tests/wire/scripted_host.h"
#include "worker/worker_service.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;

// Authorities and certificates for 127.0.0.1, made by the command openssl.
class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "there is no openssl command";
    for (const char* cluster : {"ours", "theirs"}) {
      ASSERT_EQ(Run(fmt::format(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={0} "
                    "-keyout {0}-ca.key -out {0}-ca.pem",
                    cluster)),
                0);
      ASSERT_EQ(
          Run(fmt::format("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=node -addext "
                          "subjectAltName=IP:127.0.0.1,DNS:localhost -keyout {0}.key -out {0}.csr",
                          cluster)),
          0);
      ASSERT_EQ(
          Run(fmt::format("x509 -req -in {0}.csr -CA {0}-ca.pem -CAkey {0}-ca.key -CAcreateserial -days 2 "
                          "-copy_extensions copy -out {0}.pem",
                          cluster)),
          0);
    }
  }
  int Run(const std::string& arguments) {
    return std::system(fmt::format("cd {} && openssl {} > log 2>&1", folder_.path(), arguments).c_str());
  }
  ClusterTls Files(const std::string& certificate_of, const std::string& trusts) {
    return {.certificate_file = folder_.File(certificate_of + ".pem"),
            .key_file = folder_.File(certificate_of + ".key"),
            .ca_file = folder_.File(trusts + "-ca.pem")};
  }
  static absl::Status Call(const std::string& address, const ClusterTls& tls) {
    const auto link = MakeGrpcWorkerLink(address, tls);
    if (!link.ok()) return link.status();
    const auto listen = [](const proto::GenerateEvent&) { return true; };
    return (*link)->Generate(Script("tokens"), listen, CancelToken::Never());
  }

  // Speaks TLS and trusts the cluster, but has nothing to show.
  grpc::StatusCode StatusWithoutCertificate(const std::string& address) {
    std::ifstream file(folder_.File("ours-ca.pem"));
    std::stringstream ca;
    ca << file.rdbuf();
    const auto credentials =
        grpc::SslCredentials({.pem_root_certs = ca.str(), .pem_private_key = "", .pem_cert_chain = ""});
    const auto stub = proto::WorkerService::NewStub(grpc::CreateChannel(address, credentials));
    grpc::ClientContext context;
    proto::WorkerStatus status;
    return stub->GetStatus(&context, {}, &status).error_code();
  }

  TemporaryFolder folder_;
  ScriptedHost host_;
};

TEST_F(TlsTest, OnlyCertificatesOfTheClusterGetIn) {
  const auto service =
      WorkerService::Start(host_, {.listen = "127.0.0.1:0", .tls = Files("ours", "ours")}).value();
  service->SetIncarnation(1);
  EXPECT_TRUE(Call(service->address(), Files("ours", "ours")).ok());
  // Without TLS and so without a certificate, with a stranger's, and one that takes us for strangers.
  EXPECT_EQ(Call(service->address(), {}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Call(service->address(), Files("theirs", "ours")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Call(service->address(), Files("ours", "theirs")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusWithoutCertificate(service->address()), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(host_.running(), 0);
}

TEST_F(TlsTest, BeyondLoopbackThereIsNoPortWithoutCertificates) {
  const auto open = WorkerService::Start(host_, {.listen = "0.0.0.0:0", .tls = {}});
  EXPECT_EQ(open.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(open.status()), HasSubstr("cluster.tls_certificate"));
  EXPECT_EQ(MakeGrpcWorkerLink("192.0.2.1:9000", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(WorkerService::Start(host_, {.listen = "0.0.0.0:0", .tls = Files("ours", "ours")}).ok());
}

TEST_F(TlsTest, MissingFilesAndWrongAddressesAreNamed) {
  ClusterTls tls = Files("ours", "ours");
  tls.key_file = "/nowhere/key.pem";
  const auto service = WorkerService::Start(host_, {.listen = "127.0.0.1:0", .tls = tls});
  EXPECT_THAT(Message(service.status()), HasSubstr("cluster.tls_key"));
  EXPECT_THAT(Message(service.status()), HasSubstr("/nowhere/key.pem"));
  for (const char* address : {"", "localhost", "localhost:", "localhost:70000", "::1:80", "unix:", "a b:1",
                              "127.evil.example:1", "host:1x"}) {
    EXPECT_EQ(WorkerService::Start(host_, {.listen = address, .tls = {}}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST_F(TlsTest, PortInUseIsSaid) {
  const auto first = WorkerService::Start(host_, {.listen = "127.0.0.1:0", .tls = {}}).value();
  const auto second = WorkerService::Start(host_, {.listen = first->address(), .tls = {}});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(second.status()), HasSubstr(first->address()));
}

}  // namespace
}  // namespace palimpsest::testing
