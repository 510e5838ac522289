#include "proto/base/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kPendingMax = 64;

// An executor with one thread of work, and how time passes for it.
class Rig {
 public:
  virtual ~Rig() = default;
  virtual Executor& executor() = 0;
  virtual void Settle() = 0;              // everything due now has run
  virtual void Advance(Duration by) = 0;  // `by` has passed and everything due then has run
};

class ThreadRig final : public Rig {
 public:
  Executor& executor() override { return executor_; }
  void Settle() override {
    std::promise<void>
        reached;  // tasks start in order and there is one thread: the last is reached after the others
    ASSERT_TRUE(executor_.Run([&] { reached.set_value(); }).ok());
    reached.get_future().wait();
  }
  void Advance(Duration by) override {
    std::promise<void> reached;
    ASSERT_TRUE(executor_.RunAfter(by, [&] { reached.set_value(); }).ok());
    reached.get_future().wait();
  }

 private:
  ThreadExecutor executor_{1, kPendingMax};
};

class ManualRig final : public Rig {
 public:
  Executor& executor() override { return executor_; }
  void Settle() override { executor_.RunUntilIdle(); }
  void Advance(Duration by) override { executor_.Advance(by); }

 private:
  ManualClock clock_;
  ManualExecutor executor_{clock_, kPendingMax};
};

class ExecutorContractTest : public ::testing::TestWithParam<std::string> {
 protected:
  ExecutorContractTest() {
    if (GetParam() == "Thread") {
      rig_ = std::make_unique<ThreadRig>();
    } else {
      rig_ = std::make_unique<ManualRig>();
    }
  }
  Executor& executor() { return rig_->executor(); }

  std::unique_ptr<Rig> rig_;
};

TEST_P(ExecutorContractTest, RunsTasksInTheOrderOfTheCalls) {
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(executor().Run([&order, i] { order.push_back(i); }).ok());
  rig_->Settle();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST_P(ExecutorContractTest, TakesTasksThatCanOnlyBeMoved) {
  int seen = 0;
  ASSERT_TRUE(executor().Run([&seen, handle = std::make_unique<int>(7)] { seen = *handle; }).ok());
  rig_->Settle();
  EXPECT_EQ(seen, 7);
}

TEST_P(ExecutorContractTest, ReleasesWhatATaskCapturedWhenItHasRun) {
  auto shared = std::make_shared<int>(1);
  ASSERT_TRUE(executor().Run([shared] {}).ok());
  rig_->Settle();
  executor().Shutdown();
  EXPECT_EQ(shared.use_count(), 1);
}

TEST_P(ExecutorContractTest, DelayedTasksRunInTheOrderOfTheirDueTimes) {
  std::vector<int> order;
  ASSERT_TRUE(executor().RunAfter(30ms, [&] { order.push_back(30); }).ok());
  ASSERT_TRUE(executor().RunAfter(10ms, [&] { order.push_back(10); }).ok());
  ASSERT_TRUE(executor().RunAfter(20ms, [&] { order.push_back(20); }).ok());
  ASSERT_TRUE(executor().RunAfter(-5ms, [&] { order.push_back(0); }).ok());
  rig_->Advance(40ms);
  EXPECT_THAT(order, ElementsAre(0, 10, 20, 30));
}

TEST_P(ExecutorContractTest, ADelayedTaskDoesNotRunEarly) {
  const TimePoint start = executor().clock().Now();
  TimePoint ran;
  ASSERT_TRUE(executor().RunAfter(20ms, [&] { ran = executor().clock().Now(); }).ok());
  rig_->Settle();
  rig_->Advance(25ms);
  EXPECT_GE(ran - start, 20ms);
}

TEST_P(ExecutorContractTest, ATaskMayAddTasks) {
  std::vector<int> order;
  ASSERT_TRUE(executor()
                  .Run([&] {
                    order.push_back(1);
                    EXPECT_TRUE(executor().Run([&] { order.push_back(2); }).ok());
                    EXPECT_TRUE(executor().RunAfter(5ms, [&] { order.push_back(3); }).ok());
                  })
                  .ok());
  rig_->Settle();
  rig_->Advance(20ms);
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST_P(ExecutorContractTest, AFullQueueIsResourceExhaustedAndTheTaskDoesNotRun) {
  int ran = 0;
  for (size_t i = 0; i < kPendingMax; ++i) ASSERT_TRUE(executor().RunAfter(1h, [&] { ++ran; }).ok());
  const absl::Status status = executor().Run([&] { ++ran; });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr("64 tasks wait"));
  executor().Shutdown();
  EXPECT_EQ(ran, 0);
}

TEST_P(ExecutorContractTest, ShutdownRunsWhatIsDueAndDropsWhatIsNot) {
  std::atomic<int> due = 0;
  auto dropped = std::make_shared<int>(0);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(executor().Run([&] { ++due; }).ok());
  ASSERT_TRUE(executor().RunAfter(1h, [dropped] { ++*dropped; }).ok());
  executor().Shutdown();
  EXPECT_EQ(due, 10);
  EXPECT_EQ(*dropped, 0);
  EXPECT_EQ(dropped.use_count(), 1);
}

TEST_P(ExecutorContractTest, NothingIsAcceptedAfterShutdown) {
  executor().Shutdown();
  executor().Shutdown();
  EXPECT_EQ(executor().Run([] {}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(executor().RunAfter(1ms, [] {}).code(), absl::StatusCode::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(Executors, ExecutorContractTest, ::testing::Values("Thread", "Manual"),
                         [](const auto& instance) { return instance.param; });

TEST(ThreadExecutorTest, EveryTaskOfManyThreadsRunsOnce) {
  std::atomic<int64_t> sum = 0;
  {
    ThreadExecutor executor(3, 10'000);
    std::vector<std::thread> callers;
    for (int t = 0; t < 4; ++t) {
      callers.emplace_back([&] {
        for (int i = 1; i <= 1000; ++i) ASSERT_TRUE(executor.Run([&sum, i] { sum += i; }).ok());
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  EXPECT_EQ(sum, 4 * 1000 * 1001 / 2);
}

TEST(ThreadExecutorTest, AnIdleThreadTakesOverTheWaitOfABusyOne) {
  ThreadExecutor executor(2, 16);
  std::promise<void> timer_ran;
  std::future<void> timer = timer_ran.get_future();
  ASSERT_TRUE(executor.RunAfter(20ms, [&] { timer_ran.set_value(); }).ok());
  bool in_time = false;
  std::promise<void> done;
  ASSERT_TRUE(executor
                  .Run([&] {
                    in_time = timer.wait_for(10s) == std::future_status::ready;
                    done.set_value();
                  })
                  .ok());
  done.get_future().wait();
  EXPECT_TRUE(in_time);
}

TEST(ThreadExecutorTest, TasksAddedWhileItShutsDownAreRefusedNotLost) {
  std::promise<void> started, shutting_down;
  std::future<void> go = shutting_down.get_future();
  absl::Status refused;
  ThreadExecutor executor(1, 16);
  ASSERT_TRUE(executor
                  .Run([&] {
                    started.set_value();
                    go.wait();
                    while (executor.Run([] {}).ok()) std::this_thread::sleep_for(1ms);
                    refused = executor.Run([] {});
                  })
                  .ok());
  started.get_future().wait();
  shutting_down.set_value();
  executor.Shutdown();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ManualExecutorTest, RunOneRunsOne) {
  ManualClock clock;
  ManualExecutor executor(clock);
  int ran = 0;
  EXPECT_FALSE(executor.RunOne());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(executor.Run([&] { ++ran; }).ok());
  EXPECT_TRUE(executor.RunOne());
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(executor.pending(), 1u);
  EXPECT_TRUE(executor.RunOne());
  EXPECT_FALSE(executor.RunOne());
}

TEST(ManualExecutorTest, AdvanceStopsAtEachDueTime) {
  ManualClock clock;
  ManualExecutor executor(clock);
  const TimePoint start = clock.Now();
  std::vector<Duration> ticks;
  std::function<void()> tick = [&] {
    ticks.push_back(clock.Now() - start);
    ASSERT_TRUE(executor.RunAfter(10s, tick).ok());
  };
  ASSERT_TRUE(executor.RunAfter(10s, tick).ok());
  EXPECT_EQ(executor.Advance(35s), 3);
  EXPECT_THAT(ticks, ElementsAre(10s, 20s, 30s));
  EXPECT_EQ(clock.Now() - start, 35s);
  EXPECT_EQ(executor.NextDue(), start + 40s);
}

TEST(ManualExecutorTest, RunUntilIdleLeavesTheClockAlone) {
  ManualClock clock;
  ManualExecutor executor(clock);
  const TimePoint start = clock.Now();
  int ran = 0;
  ASSERT_TRUE(executor.RunAfter(1s, [&] { ++ran; }).ok());
  EXPECT_EQ(executor.RunUntilIdle(), 0);
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(1s);
  EXPECT_EQ(executor.RunUntilIdle(), 1);
}

}  // namespace
}  // namespace palimpsest
