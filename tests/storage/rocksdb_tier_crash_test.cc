// F5, F6 and F7 of the fault matrix: a process that fills a tier on SSD is killed at random times and at
// named places, or loses power. What its Put acknowledged is there, what was under way is there as a whole or
// not at all, and nothing is wrong.
//
// The test program runs itself as that process (`--put-until-killed FOLDER CAPACITY SEED POINT NTH CHANGES`):
// RocksDB's threads do not survive a fork. A value is a function of its key, so nothing but the acknowledged
// numbers needs to be remembered.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/power_cut.h"
#include "tests/testing/rocksdb_tier_fixture.h"

namespace palimpsest {
namespace {

constexpr int64_t kPlenty = 1 << 30, kFew = 300000;  // bytes; a batch has 12,000 to 70,000

// Every other cut of the power.
bool Tears(uint64_t seed) { return seed % 2 == 0; }

void KillMyself() { ::kill(::getpid(), SIGKILL); }

struct Run {
  std::string folder;
  int64_t capacity_bytes = kPlenty;
  uint64_t seed = 0;
  std::string point;     // empty: at a random time
  int nth = 1;           // time that the point is met
  uint64_t changes = 0;  // of files, after which the power is cut; 0: it is not
};

// In the child: puts batches, and writes the number of each to stdout once it was stored.
int PutUntilKilled(const Run& run) {
  int met = 0;
  RocksDbTierOptions options = {.folder = run.folder, .capacity_bytes = run.capacity_bytes};
  options.at_point = [&](std::string_view point) {
    if (point == run.point && ++met == run.nth) KillMyself();
  };
  if (run.changes > 0)
    options.file_system = std::make_shared<PowerCut>(run.folder, run.changes, run.seed, Tears(run.seed));
  if (run.point.empty() && run.changes == 0) {
    const std::chrono::microseconds delay(std::mt19937_64(run.seed)() % 400000);
    std::thread([delay] {
      std::this_thread::sleep_for(delay);
      KillMyself();
    }).detach();
  }
  const auto tier = OpenRocksDbTier(options);
  if (!tier.ok()) {
    std::fprintf(stderr, "%s\n", Message(tier.status()).c_str());
    return 1;
  }
  for (uint64_t number = run.seed * 1000;; ++number) {
    const absl::Status put = (*tier)->Put(BatchOf(number));
    if (!put.ok()) {
      std::fprintf(stderr, "%s\n", Message(put).c_str());
      return 1;
    }
    if (::write(STDOUT_FILENO, &number, sizeof number) != sizeof number) return 1;
  }
}

// Runs one such process to its end; the numbers it acknowledged.
std::vector<uint64_t> RunAndKill(const Run& run) {
  int acknowledged[2];
  PALIMPSEST_CHECK(::pipe(acknowledged) == 0);
  const std::string capacity = std::to_string(run.capacity_bytes), seed = std::to_string(run.seed),
                    nth = std::to_string(run.nth), changes = std::to_string(run.changes);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(acknowledged[1], STDOUT_FILENO);
    ::close(acknowledged[0]);
    ::execl("/proc/self/exe", "rocksdb_tier_crash_test", "--put-until-killed", run.folder.c_str(),
            capacity.c_str(), seed.c_str(), run.point.c_str(), nth.c_str(), changes.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(acknowledged[1]);
  std::vector<uint64_t> numbers;
  for (uint64_t number; ::read(acknowledged[0], &number, sizeof number) == sizeof number;)
    numbers.push_back(number);
  ::close(acknowledged[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      << "seed " << run.seed << " point " << run.point << " status " << status;
  return numbers;
}

class RocksDbTierCrashTest : public RocksDbTierTest {
 protected:
  // Every value that the tier has is the one its key stands for.
  void ExpectNothingWrong() {
    ASSERT_TRUE(VisitRocksDbTier(*tier_, [&](const TierKey& key, uint32_t, const auto& view) {
                  ++visited_;
                  if (!view.ok()) {
                    ADD_FAILURE() << view.status();
                  } else {
                    wrong_ += ValueOf(key, view->bytes.size()) !=
                              std::vector<uint8_t>(view->bytes.begin(), view->bytes.end());
                  }
                  return true;
                }).ok());
    EXPECT_EQ(wrong_, 0);
  }
  void ExpectWholeOrNothing(uint64_t number) {
    size_t found = 0;
    const std::vector<TierItem> items = BatchOf(number);
    for (const TierItem& item : items) found += tier_->Contains(item.key);
    EXPECT_TRUE(found == 0 || found == items.size())
        << found << " of " << items.size() << " of batch " << number;
  }

  int64_t visited_ = 0, wrong_ = 0;
};

TEST_F(RocksDbTierCrashTest, WhatWasAcknowledgedSurvivesKillsAtAnyTime) {
  constexpr uint64_t kKills = 25, kKillsMax = 60;  // more only where so little was done before the kills
  constexpr size_t kAcknowledgedMin = 20;
  uint64_t kills = 0;
  std::vector<uint64_t> acknowledged;
  while (kills < kKills || (acknowledged.size() < kAcknowledgedMin && kills < kKillsMax)) {
    const uint64_t seed = ++kills;
    const std::vector<uint64_t> numbers = RunAndKill({.folder = folder_, .seed = seed});
    acknowledged.insert(acknowledged.end(), numbers.begin(), numbers.end());
    ASSERT_TRUE(Open({.capacity_bytes = kPlenty}).ok());
    EXPECT_EQ(report_.quarantined, "");
    for (const uint64_t number : numbers) ExpectFound(BatchOf(number));
    ExpectWholeOrNothing(numbers.empty() ? seed * 1000 : numbers.back() + 1);
    tier_.reset();
  }
  ASSERT_TRUE(Open({.capacity_bytes = kPlenty}).ok());
  ExpectNothingWrong();
  for (const uint64_t number : acknowledged) ExpectFound(BatchOf(number));
  EXPECT_GE(acknowledged.size(), kAcknowledgedMin);
  std::printf("%lu kills: %zu of %zu acknowledged batches found, %ld of %ld values wrong\n",
              static_cast<unsigned long>(kills), acknowledged.size(), acknowledged.size(),
              static_cast<long>(wrong_), static_cast<long>(visited_));
}

// With a capacity of some batches, so that each Put evicts.
TEST_F(RocksDbTierCrashTest, AKillAtAnyNamedPlaceLosesNothingThatWasAcknowledged) {
  const std::vector<std::pair<std::string, std::vector<int>>> places = {
      {"database made", {1}},
      {"recovered", {1}},
      {"before files", {1, 9}},
      {"file written", {1, 2, 3, 4, 31}},
      {"before ingest", {1, 10}},
      {"after ingest", {1, 11}},
      {"before erase", {1, 4}},
      {"erased", {1, 5}},
      {"family dropped", {1, 2, 3, 4, 9, 10}},
      {"dropped", {1, 3}}};
  uint64_t seed = 100;
  int kills = 0, dropped = 0;
  for (const auto& [point, times] : places) {
    for (const int nth : times) {
      SCOPED_TRACE(fmt::format("point {} time {}", point, nth));
      if (point == "database made") std::filesystem::remove_all(folder_);
      const std::vector<uint64_t> numbers =
          RunAndKill({.folder = folder_, .capacity_bytes = kFew, .seed = ++seed, .point = point, .nth = nth});
      ++kills;
      ASSERT_TRUE(Open({.capacity_bytes = kFew}).ok());
      EXPECT_EQ(report_.quarantined, "");
      dropped += static_cast<int>(report_.dropped_batches);
      EXPECT_EQ(report_.damaged_batches, 0);
      ExpectNothingWrong();
      const uint64_t under_way = numbers.empty() ? seed * 1000 : numbers.back() + 1;
      ExpectWholeOrNothing(under_way);
      // The newest that fit beside what was under way, which may have made room for itself already.
      int64_t room = kFew - BytesOf(BatchOf(under_way));
      for (auto number = numbers.rbegin(); number != numbers.rend(); ++number) {
        room -= BytesOf(BatchOf(*number));
        if (room < 0) break;
        ExpectFound(BatchOf(*number));
      }
      ASSERT_TRUE(tier_->Put(BatchOf(seed * 1000 + 500)).ok());
      tier_.reset();
    }
  }
  EXPECT_GT(dropped, 0) << "some places leave files without entries";
  std::printf("%d kills at %zu named places: %d batches cleaned up, %ld of %ld values wrong\n", kills,
              places.size(), dropped, static_cast<long>(wrong_), static_cast<long>(visited_));
}

// PALIMPSEST_TEST_POWER_CUTS of them; a fresh folder now and then, since its first files are the most
// fragile. RocksDB does not read a manifest with zeros in it: then the tier is moved aside, and an empty one
// starts.
TEST_F(RocksDbTierCrashTest, WhatWasAcknowledgedSurvivesCutsOfThePower) {
  const char* const wanted = std::getenv("PALIMPSEST_TEST_POWER_CUTS");
  const uint64_t cuts = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 16;
  std::mt19937_64 random(7);
  std::vector<uint64_t> acknowledged;
  size_t all = 0, moved_aside = 0;
  for (uint64_t seed = 1; seed <= cuts; ++seed) {
    SCOPED_TRACE(fmt::format("cut {}", seed));
    const bool anew = seed % 5 == 1;
    if (anew) {
      std::filesystem::remove_all(folder_);
      acknowledged.clear();
    }
    const uint64_t changes = 1 + random() % (anew ? 300 : 1500);
    const std::vector<uint64_t> numbers =
        RunAndKill({.folder = folder_, .seed = 5000 + seed, .changes = changes});
    all += numbers.size();
    acknowledged.insert(acknowledged.end(), numbers.begin(), numbers.end());
    ASSERT_TRUE(Open({.capacity_bytes = kPlenty}).ok());
    if (Tears(5000 + seed) && !report_.quarantined.empty()) {
      std::filesystem::remove_all(report_.quarantined);
      acknowledged.clear();
      ++moved_aside;
      tier_.reset();
      continue;
    }
    EXPECT_EQ(report_.quarantined, "");
    ExpectNothingWrong();
    for (const uint64_t number : acknowledged) ExpectFound(BatchOf(number));
    ExpectWholeOrNothing(numbers.empty() ? (5000 + seed) * 1000 : numbers.back() + 1);
    tier_.reset();
  }
  EXPECT_GT(all, cuts);
  std::printf(
      "%lu cuts of the power: %zu acknowledged batches, %zu times a torn tier was moved aside, else all "
      "found; %ld "
      "of %ld values wrong\n",
      static_cast<unsigned long>(cuts), all, moved_aside, static_cast<long>(wrong_),
      static_cast<long>(visited_));
}

}  // namespace
}  // namespace palimpsest

int main(int argc, char** argv) {
  if (argc == 8 && std::string(argv[1]) == "--put-until-killed") {
    return palimpsest::PutUntilKilled({.folder = argv[2],
                                       .capacity_bytes = std::atoll(argv[3]),
                                       .seed = std::strtoull(argv[4], nullptr, 10),
                                       .point = argv[5],
                                       .nth = std::atoi(argv[6]),
                                       .changes = std::strtoull(argv[7], nullptr, 10)});
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
