// Calls of a coordinator to a worker, over real gRPC on a Unix socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "coordinator/worker_link.h"
#include "tests/testing/temporary_folder.h"
#include "tests/wire/scripted_host.h"
#include "worker/worker_service.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;

double SecondsSince(TimePoint start) { return Seconds(RealClock().Now() - start); }

class WorkerCallTest : public ::testing::Test {
 protected:
  WorkerCallTest() {
    service_ = WorkerService::Start(host_, {.listen = "unix:" + folder_.File("w"), .tls = {}}).value();
    service_->SetIncarnation(5);
    link_ = MakeGrpcWorkerLink(service_->address(), {}).value();
  }

  absl::Status Generate(const proto::GenerateRequest& request,
                        const CancelToken& cancel = CancelToken::Never()) {
    return link_->Generate(
        request,
        [this](const proto::GenerateEvent& event) {
          events_.push_back(event);
          ++received_;
          return true;
        },
        cancel);
  }

  TemporaryFolder folder_;
  ScriptedHost host_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<WorkerLink> link_;
  std::vector<proto::GenerateEvent> events_;
  std::atomic<int> received_ = 0;
};

TEST_F(WorkerCallTest, EventsAreThoseOfTheHost) {
  ASSERT_TRUE(Generate(Script("tokens", 1000)).ok());
  std::vector<proto::GenerateEvent> direct;
  const auto listen = [&](const proto::GenerateEvent& event) {
    direct.push_back(event);
    return true;
  };
  ASSERT_TRUE(host_.Generate(Script("tokens", 1000), listen, CancelToken::Never()).ok());
  ASSERT_EQ(events_.size(), direct.size());
  for (size_t i = 0; i < direct.size(); ++i) {
    EXPECT_EQ(events_[i].SerializeAsString(), direct[i].SerializeAsString()) << i;
  }
}

TEST_F(WorkerCallTest, CallsRunSideBySide) {
  std::vector<std::thread> callers;
  std::atomic<int> tokens = 0;
  for (int i = 0; i < 16; ++i) {
    callers.emplace_back([&] {
      const auto count = [&](const proto::GenerateEvent& event) {
        tokens += event.has_token() ? 1 : 0;
        return true;
      };
      EXPECT_TRUE(link_->Generate(Script("tokens", 50), count, CancelToken::Never()).ok());
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(tokens, 16 * 50);
}

TEST_F(WorkerCallTest, ErrorsKeepTheirCodeAndText) {
  for (const auto code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kUnavailable, absl::StatusCode::kInternal, absl::StatusCode::kDataLoss}) {
    EXPECT_EQ(Generate(Script(fmt::format("fail {}", static_cast<int>(code)))),
              absl::Status(code, "as the script says"));
  }
}

TEST_F(WorkerCallTest, CancelEndsTheCallAndTheCompute) {
  CancelToken cancel;
  std::thread canceller([&] {
    EXPECT_TRUE(Eventually([&] { return received_ == 3; }));
    cancel.Set();
  });
  const absl::Status status = Generate(Script("hang"), cancel);
  canceller.join();
  const TimePoint start = RealClock().Now();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(Eventually([&] { return host_.running() == 0; }));
  RecordProperty("seconds_until_compute_stopped", fmt::format("{:.3f}", SecondsSince(start)));
  EXPECT_EQ(host_.cancelled(), 1);
}

TEST_F(WorkerCallTest, ListenerThatIsGoneEndsTheCall) {
  int heard = 0;
  const auto leave = [&](const proto::GenerateEvent&) { return ++heard < 2; };
  EXPECT_EQ(link_->Generate(Script("hang"), leave, CancelToken::Never()).code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(heard, 2);
  EXPECT_TRUE(Eventually([&] { return host_.running() == 0; }));
}

TEST_F(WorkerCallTest, AnotherIncarnationIsRefusedWithBothNumbers) {
  const absl::Status status = Generate(Script("tokens", 3, 4));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("incarnation 4"));
  EXPECT_THAT(Message(status), HasSubstr("at 5"));
  EXPECT_TRUE(Generate(Script("tokens", 3, 5)).ok());
}

TEST_F(WorkerCallTest, RequestThatComesBeforeTheWelcomeWaitsForIt) {
  service_->SetIncarnation(0);
  std::thread welcome([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    service_->SetIncarnation(6);
  });
  EXPECT_TRUE(Generate(Script("tokens", 3, 6)).ok());
  welcome.join();
}

TEST_F(WorkerCallTest, FencedWorkerEndsWhatRunsAndServesNobody) {
  std::thread fence([&] {
    EXPECT_TRUE(Eventually([&] { return received_ == 3; }));
    service_->SetIncarnation(0);
  });
  EXPECT_EQ(Generate(Script("hang")).code(), absl::StatusCode::kUnavailable);
  fence.join();
  EXPECT_EQ(host_.running(), 0);
  EXPECT_EQ(Generate(Script("tokens")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(WorkerCallTest, StoppedServiceIsUnavailableAndTheLinkFindsTheNextOne) {
  const std::string address = service_->address();
  std::thread stop([&] {
    EXPECT_TRUE(Eventually([&] { return received_ == 3; }));
    service_->Stop();
  });
  EXPECT_EQ(Generate(Script("hang")).code(), absl::StatusCode::kUnavailable);
  stop.join();
  EXPECT_EQ(Generate(Script("tokens")).code(), absl::StatusCode::kUnavailable);
  service_ = WorkerService::Start(host_, {.listen = address, .tls = {}}).value();
  service_->SetIncarnation(6);
  EXPECT_TRUE(Eventually([&] { return Generate(Script("tokens", 3, 6)).ok(); }));
}

TEST_F(WorkerCallTest, PromptAboveTheMessageLimitIsRefusedWithBothNumbers) {
  proto::GenerateRequest request = Script("tokens");
  request.add_parts()->mutable_tokens()->Resize(34'000'000, 300);  // two bytes each
  const absl::Status status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr("67108864"));
}

TEST(DeadWorkerTest, IsNoticedAtOnce) {
  TemporaryFolder folder;
  const std::string address = "unix:" + folder.File("w"), program = PALIMPSEST_SCRIPTED_WORKER;
  int out[2];
  ASSERT_EQ(::pipe(out), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  std::string arguments[] = {program, address};
  char* argv[] = {arguments[0].data(), arguments[1].data(), nullptr};
  pid_t pid = 0;
  ASSERT_EQ(posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  char ready = 0;
  ASSERT_EQ(::read(out[0], &ready, 1), 1);
  const auto link = MakeGrpcWorkerLink(address, {}).value();
  std::atomic<int> received = 0;
  TimePoint killed;
  std::thread killer([&] {
    EXPECT_TRUE(Eventually([&] { return received == 3; }));
    killed = RealClock().Now();
    ::kill(pid, SIGKILL);
  });
  const auto listen = [&](const proto::GenerateEvent&) { return ++received > 0; };
  const absl::Status status = link->Generate(Script("hang"), listen, CancelToken::Never());
  const TimePoint noticed = RealClock().Now();
  killer.join();
  ::waitpid(pid, nullptr, 0);
  ::close(out[0]);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  RecordProperty("seconds_until_noticed", fmt::format("{:.4f}", Seconds(noticed - killed)));
  EXPECT_LT(Seconds(noticed - killed), 0.5);
}

}  // namespace
}  // namespace palimpsest::testing
