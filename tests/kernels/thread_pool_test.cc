#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace palimpsest {
namespace {

// spin_us 0: workers sleep between any two regions; 50: they mostly spin.
class ThreadPoolTest : public ::testing::TestWithParam<std::tuple<int, int64_t>> {
 protected:
  ThreadPoolTest()
      : pool_({.threads = std::get<0>(GetParam()), .pin = false, .spin_us = std::get<1>(GetParam())}) {}
  ThreadPool pool_;
};

TEST_P(ThreadPoolTest, HasAsManyThreadsAsAskedFor) { EXPECT_EQ(pool_.threads(), std::get<0>(GetParam())); }

TEST_P(ThreadPoolTest, EveryTaskRunsExactlyOnce) {
  for (const int64_t tasks : {0, 1, 2, 3, 4, 5, 17, 64, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
    std::atomic<int> strangers{0};
    pool_.ParallelFor(tasks, [&](int64_t task, int thread) {
      if (thread < 0 || thread >= pool_.threads() || task < 0 || task >= tasks) {
        strangers.fetch_add(1);
        return;
      }
      runs[static_cast<size_t>(task)].fetch_add(1);
    });
    EXPECT_EQ(strangers.load(), 0) << tasks << " tasks";
    for (const auto& run : runs) ASSERT_EQ(run.load(), 1) << tasks << " tasks";
  }
}

// Plain ints on purpose: what a region wrote is visible to the caller and to every task of the next region,
// and a thread number belongs to one thread at a time. Losing either is a wrong sum here and a report under
// TSan.
TEST_P(ThreadPoolTest, TenThousandRegionsHandOverPlainMemory) {
  constexpr int kRegions = 10000;
  constexpr int64_t kTasks = 7;
  std::vector<int64_t> values(kTasks, 0);
  std::vector<int64_t> by_thread(static_cast<size_t>(pool_.threads()), 0);
  for (int region = 0; region < kRegions; ++region) {
    pool_.ParallelFor(kTasks, [&](int64_t task, int thread) {
      values[static_cast<size_t>((task + region) % kTasks)] +=
          1;  // another thread's value of the last region
      by_thread[static_cast<size_t>(thread)] += 1;
    });
    for (const int64_t value : values) ASSERT_EQ(value, region + 1);
  }
  int64_t total = 0;
  for (const int64_t count : by_thread) total += count;
  EXPECT_EQ(total, kRegions * kTasks);
}

TEST_P(ThreadPoolTest, WorkersThatFellAsleepComeBack) {
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    int64_t values[8] = {};
    pool_.ParallelFor(8, [&](int64_t task, int) { values[task] = task + round; });
    for (int64_t task = 0; task < 8; ++task) ASSERT_EQ(values[task], task + round);
  }
}

INSTANTIATE_TEST_SUITE_P(ThreadsAndSpin, ThreadPoolTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4), ::testing::Values(0, 50)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "Threads" +
                                  (std::get<1>(test.param) == 0 ? "Sleeping" : "Spinning");
                         });

TEST(ThreadPoolShareTest, ASlowTaskDoesNotHoldUpTheOthers) {
  for (const int threads : {2, 3, 4}) {
    ThreadPool pool({.threads = threads, .pin = false, .spin_us = 50});
    // Task 0 ends only when all others have run: other threads must take them meanwhile.
    std::atomic<int> done{0};
    pool.ParallelFor(50, [&](int64_t task, int) {
      while (task == 0 && done.load() < 49) std::this_thread::yield();
      if (task != 0) done.fetch_add(1);
    });
    EXPECT_EQ(done.load(), 49);
  }
}

TEST(ThreadPoolLifeTest, PoolsEndWhateverTheirWorkersDo) {
  for (const int64_t spin_us : {0, 5000}) {
    { ThreadPool unused({.threads = 4, .pin = false, .spin_us = spin_us}); }
    {
      ThreadPool busy({.threads = 4, .pin = false, .spin_us = spin_us});
      busy.ParallelFor(16, [](int64_t, int) {});  // ended while its workers spin or fall asleep
    }
  }
}

TEST(ThreadPoolLifeTest, ZeroThreadsMeansOnePerCoreAndPinningWorks) {
  ThreadPool pool({.threads = 0, .pin = true, .spin_us = 50});
  EXPECT_GE(pool.threads(), 1);
  std::atomic<int> runs{0};
  pool.ParallelFor(100, [&](int64_t, int) { runs.fetch_add(1); });
  EXPECT_EQ(runs.load(), 100);
}

}  // namespace
}  // namespace palimpsest
