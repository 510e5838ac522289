#include "proto/base/cores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <future>
#include <thread>

#include "proto/base/executor.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<int> MyCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

// What an engine's thread starts once read an SSD with eight threads on one core.
TEST(CoresTest, WhatAPinnedThreadStartsRunsOnAllCores) {
  const std::vector<int>& all = ProcessCores();
  if (all.size() < 2) GTEST_SKIP() << "this machine has one core";
  std::thread pinned([&] {
    RunOnCore(all.back());
    EXPECT_THAT(MyCores(), ElementsAre(all.back()));
    EXPECT_THAT(ProcessCores(), ElementsAreArray(all));
    ThreadExecutor executor(1, 8);
    std::promise<std::vector<int>> of_task;
    ASSERT_TRUE(executor.Run([&] { of_task.set_value(MyCores()); }).ok());
    EXPECT_THAT(of_task.get_future().get(), ElementsAreArray(all));
    executor.Shutdown();
    EXPECT_THAT(MyCores(), ElementsAre(all.back()));
    RunOnAllCores();
    EXPECT_THAT(MyCores(), ElementsAreArray(all));
  });
  pinned.join();
}

}  // namespace
}  // namespace palimpsest
