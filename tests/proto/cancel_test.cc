#include "proto/base/cancel.h"

#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using namespace std::chrono_literals;

TEST(CancelTokenTest, CheckFailsOnceItIsSet) {
  CancelToken token;
  EXPECT_TRUE(token.Check().ok());
  token.Set();
  EXPECT_TRUE(token.IsSet());
  EXPECT_EQ(token.Check().code(), absl::StatusCode::kCancelled);
}

TEST(CancelTokenTest, AChildIsSetWithItsParentButNotTheOtherWay) {
  CancelToken process;
  CancelToken request(&process), other(&process);
  request.Set();
  EXPECT_FALSE(process.IsSet());
  EXPECT_FALSE(other.IsSet());
  process.Set();
  EXPECT_TRUE(other.IsSet());
}

TEST(CancelTokenTest, NeverIsNotSet) { EXPECT_FALSE(CancelToken::Never().IsSet()); }

TEST(CancelTokenTest, StopsALoopOnAnotherThread) {
  CancelToken token;
  std::thread loop([&] {
    while (token.Check().ok()) std::this_thread::yield();
  });
  token.Set();
  loop.join();
}

CancelToken* signalled = nullptr;

TEST(CancelTokenTest, MayBeSetFromASignalHandler) {
  CancelToken token;
  signalled = &token;
  const auto previous = std::signal(SIGUSR1, [](int) { signalled->Set(); });
  std::raise(SIGUSR1);
  std::signal(SIGUSR1, previous);
  EXPECT_TRUE(token.IsSet());
}

TEST(DeadlineTest, ExpiresWhenTheClockReachesIt) {
  ManualClock clock;
  const Deadline deadline = Deadline::After(clock, 3s);
  clock.Advance(2s);
  EXPECT_FALSE(deadline.Expired());
  EXPECT_EQ(deadline.Remaining(), 1s);
  EXPECT_TRUE(deadline.Check("prefill").ok());
  clock.Advance(1s);
  EXPECT_TRUE(deadline.Expired());
  EXPECT_EQ(deadline.Remaining(), 0s);
}

TEST(DeadlineTest, ItsErrorNamesTheWorkAndTheLimit) {
  ManualClock clock;
  const Deadline deadline = Deadline::After(clock, 250ms);
  clock.Advance(1h);
  const absl::Status status = deadline.Check("read of tile 7");
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Message(status), "read of tile 7 exceeded its time limit of 0.25 s");
}

TEST(DeadlineTest, NeverDoesNotExpire) {
  EXPECT_FALSE(Deadline::Never().Expired());
  EXPECT_EQ(Deadline::Never().Remaining(), Duration::max());
}

TEST(DeadlineTest, AHugeLimitDoesNotOverflow) {
  ManualClock clock;
  EXPECT_FALSE(Deadline::After(clock, Duration::max()).Expired());
}

TEST(DeadlineTest, AtMostKeepsTheEarlierOfTheTwo) {
  ManualClock clock;
  const Deadline deadline = Deadline::After(clock, 3s);
  EXPECT_EQ(deadline.AtMost(1s).Remaining(), 1s);
  EXPECT_EQ(deadline.AtMost(5s).Remaining(), 3s);
}

}  // namespace
}  // namespace palimpsest
