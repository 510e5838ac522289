// Workers joining, staying and leaving, over real gRPC.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "coordinator/join_service.h"
#include "proto/coordinator.grpc.pb.h"
#include "tests/testing/temporary_folder.h"
#include "tests/wire/scripted_host.h"
#include "worker/join_client.h"
#include "worker/worker_service.h"

namespace palimpsest::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr auto kLease = milliseconds(1000);

proto::Hello GoodHello(const std::string& address) {
  proto::Hello hello;
  hello.set_version("1.2.3");
  hello.set_protocol(kWorkerProtocol);
  hello.set_cluster_id("ours");
  hello.set_model_hash("aaaa");
  hello.set_key_schema("schema one");
  hello.set_address(address);
  hello.set_arena_bytes(1 << 20);
  hello.set_bytes_per_token(16);
  hello.set_window_tokens(2048);
  hello.set_process_id(77);
  return hello;
}

// A worker: host, service and its place in the cluster.
class Member {
 public:
  Member(const TemporaryFolder& folder, const std::string& name, const std::string& coordinator,
         const std::function<void(proto::Hello&)>& change = {}) {
    service = WorkerService::Start(host, {.listen = "unix:" + folder.File(name), .tls = {}}).value();
    proto::Hello hello = GoodHello(service->address());
    if (change) change(hello);
    join = JoinClient::Start({.coordinator = coordinator,
                              .tls = {},
                              .hello = hello,
                              .on_incarnation =
                                  [this](uint64_t incarnation) {
                                    service->SetIncarnation(incarnation);
                                    const std::lock_guard lock(mu);
                                    if (incarnation != 0) welcomes.push_back(incarnation);
                                    current = incarnation;
                                  },
                              .status = [this] { return host.Status(); }})
               .value();
  }
  ~Member() {
    join->Stop();
    service->Stop();
  }
  uint64_t Current() {
    const std::lock_guard lock(mu);
    return current;
  }
  size_t Welcomes() {
    const std::lock_guard lock(mu);
    return welcomes.size();
  }

  ScriptedHost host;
  std::unique_ptr<WorkerService> service;
  std::mutex mu;
  std::vector<uint64_t> welcomes;  // guarded by mu, as below
  uint64_t current = 0;
  std::unique_ptr<JoinClient> join;
};

class JoinTest : public ::testing::Test {
 protected:
  JoinTest() { StartCoordinator(); }
  void StartCoordinator() {
    join_service_ =
        JoinService::Start(registry_, {.listen = "unix:" + folder_.File("join"), .tls = {}, .on_join = {}})
            .value();
  }
  std::unique_ptr<Member> Add(const std::string& name,
                              const std::function<void(proto::Hello&)>& change = {}) {
    return std::make_unique<Member>(folder_, name, join_service_->address(), change);
  }
  bool Refused(const std::function<void(proto::Hello&)>& change, const std::string& theirs,
               const std::string& ours) {
    const auto member = Add("refused", change);
    if (!Eventually([&] { return member->join->Ended().has_value(); })) return false;
    const absl::Status status = *member->join->Ended();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(Message(status), HasSubstr(theirs));
    EXPECT_THAT(Message(status), HasSubstr(ours));
    return true;
  }

  TemporaryFolder folder_;
  Registry registry_{{.version = "1.2.3", .cluster_id = "ours", .model_hash = "aaaa", .lease = kLease},
                     RealClock()};
  std::unique_ptr<JoinService> join_service_;
};

TEST_F(JoinTest, WorkerIsAliveReachableAndStaysSoWhileItBeats) {
  const auto member = Add("w");
  ASSERT_TRUE(registry_.WaitForOne(std::chrono::seconds(20), CancelToken::Never()));
  const Registry::Worker worker = registry_.Alive()[0];
  EXPECT_EQ(worker.hello.process_id(), 77);
  int events = 0;
  const auto listen = [&](const proto::GenerateEvent&) { return ++events > 0; };
  EXPECT_TRUE(
      worker.link->Generate(Script("tokens", 3, worker.incarnation), listen, CancelToken::Never()).ok());
  EXPECT_EQ(events, 4);
  std::this_thread::sleep_for(2 * kLease);
  ASSERT_EQ(registry_.Alive().size(), 1u);
  EXPECT_EQ(registry_.Alive()[0].incarnation, worker.incarnation);
  EXPECT_EQ(registry_.Alive()[0].status.arena_bytes(), 123);
}

TEST_F(JoinTest, WorkerThatStopsIsGoneAtOnce) {
  auto member = Add("w");
  ASSERT_TRUE(registry_.WaitForOne(std::chrono::seconds(20), CancelToken::Never()));
  member.reset();
  EXPECT_TRUE(Eventually([&] { return registry_.Alive().empty(); }));
}

TEST_F(JoinTest, LeavingWorkerGetsNothingNewAndFinishes) {
  const auto member = Add("w");
  ASSERT_TRUE(registry_.WaitForOne(std::chrono::seconds(20), CancelToken::Never()));
  const Registry::Worker worker = registry_.Alive()[0];
  EXPECT_TRUE(member->join->Leave(std::chrono::seconds(20)));
  EXPECT_TRUE(Eventually([&] { return registry_.Alive().empty(); }));
  const auto listen = [](const proto::GenerateEvent&) { return true; };
  EXPECT_TRUE(
      worker.link->Generate(Script("tokens", 3, worker.incarnation), listen, CancelToken::Never()).ok());
}

TEST_F(JoinTest, HandshakeRefusesWhatDiffersWithBothValues) {
  EXPECT_TRUE(Refused([](proto::Hello& hello) { hello.set_version("9.9.9"); }, "9.9.9", "1.2.3"));
  EXPECT_TRUE(Refused([](proto::Hello& hello) { hello.set_model_hash("bbbb"); }, "bbbb", "aaaa"));
  EXPECT_TRUE(Refused([](proto::Hello& hello) { hello.set_cluster_id("theirs"); }, "theirs", "ours"));
  EXPECT_TRUE(
      Refused([](proto::Hello& hello) { hello.set_protocol(99); }, "99", std::to_string(kWorkerProtocol)));
  const auto first = Add("w");
  ASSERT_TRUE(registry_.WaitForOne(std::chrono::seconds(20), CancelToken::Never()));
  EXPECT_TRUE(
      Refused([](proto::Hello& hello) { hello.set_key_schema("schema two"); }, "schema two", "schema one"));
}

TEST_F(JoinTest, AddressThatCannotBeReachedIsRefused) {
  const auto member = Add("w", [](proto::Hello& hello) { hello.set_address("0.0.0.0:9000"); });
  ASSERT_TRUE(Eventually([&] { return member->join->Ended().has_value(); }));
  EXPECT_THAT(Message(*member->join->Ended()), HasSubstr("cluster.listen"));
}

TEST_F(JoinTest, CoordinatorThatComesBackIsJoinedAgainAsANewIncarnation) {
  const auto member = Add("w");
  ASSERT_TRUE(Eventually([&] { return member->Welcomes() == 1; }));
  join_service_->Stop();
  EXPECT_TRUE(Eventually([&] { return member->Current() == 0; }));
  EXPECT_TRUE(registry_.Alive().empty());
  StartCoordinator();
  ASSERT_TRUE(Eventually([&] { return member->Current() == 2; }));
}

TEST_F(JoinTest, SilentWorkerIsForgottenAfterALease) {
  const auto channel = grpc::CreateChannel(join_service_->address(), grpc::InsecureChannelCredentials());
  const auto stub = proto::CoordinatorService::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->Join(&context);
  proto::WorkerMessage hello;
  *hello.mutable_hello() = GoodHello("unix:/nowhere");
  ASSERT_TRUE(stream->Write(hello));
  ASSERT_TRUE(registry_.WaitForOne(std::chrono::seconds(20), CancelToken::Never()));
  EXPECT_TRUE(Eventually([&] { return registry_.Alive().empty(); }));
  proto::CoordinatorMessage message;
  while (stream->Read(&message)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_F(JoinTest, StreamThatDoesNotBeginWithAHelloIsRefused) {
  const auto channel = grpc::CreateChannel(join_service_->address(), grpc::InsecureChannelCredentials());
  const auto stub = proto::CoordinatorService::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->Join(&context);
  proto::WorkerMessage beat;
  beat.mutable_beat();
  ASSERT_TRUE(stream->Write(beat));
  proto::CoordinatorMessage message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// Welcomes with a lease of 1 s and then says nothing; the stream stays open.
class SilentCoordinator final : public proto::CoordinatorService::Service {
 public:
  grpc::Status Join(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<proto::CoordinatorMessage, proto::WorkerMessage>* stream) override {
    proto::WorkerMessage message;
    stream->Read(&message);
    proto::CoordinatorMessage welcome;
    welcome.mutable_welcome()->set_incarnation(++joins);
    welcome.mutable_welcome()->set_lease_millis(kLease.count());
    stream->Write(welcome);
    while (stream->Read(&message)) {
    }
    return grpc::Status::OK;
  }
  std::atomic<uint64_t> joins = 0;
};

TEST(FencingTest, HalfALeaseOfSilenceEndsWhatRunsAndTheWorkerJoinsAgain) {
  TemporaryFolder folder;
  SilentCoordinator coordinator;
  RpcServer server = StartRpcServer(coordinator, "unix:" + folder.File("join"), "test", {}, 16).value();
  Member member(folder, "w", server.address);
  ASSERT_TRUE(Eventually([&] { return member.Current() == 1; }));
  const TimePoint welcomed = RealClock().Now();
  const auto link = MakeGrpcWorkerLink(member.service->address(), {}).value();
  const auto listen = [](const proto::GenerateEvent&) { return true; };
  const absl::Status status = link->Generate(Script("hang", 3, 1), listen, CancelToken::Never());
  const double seconds = Seconds(RealClock().Now() - welcomed);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(member.host.running(), 0);
  RecordProperty("seconds_until_fenced", fmt::format("{:.3f}", seconds));
  EXPECT_GT(seconds, 0.3);
  EXPECT_LT(seconds, 1.0);  // a lease: after it the coordinator gives the request to another worker
  EXPECT_TRUE(Eventually([&] { return member.Current() >= 2; }));
  member.join->Stop();
  server.server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace palimpsest::testing
