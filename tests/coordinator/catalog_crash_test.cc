// F5 of the fault matrix: a process that adds documents is killed at random times; what it acknowledged is
// there, whole.
//
// The test program runs itself as that process (`--add-until-killed DATA_DIR SEED`): RocksDB's threads do not
// survive a fork. A document's text is a function of its number, so nothing but the acknowledged numbers
// needs to be remembered.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/catalog.h"
#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

constexpr int kRounds = 25, kRoundsMax = 60;  // more only where so little was done before the kills
constexpr size_t kAcknowledgedMin = 20;

// From a few bytes to some MiB, so that kills fall into single writes and into documents of several.
std::string TextOf(uint64_t number) {
  std::mt19937_64 random(number);
  const size_t bytes = number % 5 == 0 ? 1 + random() % (6 << 20) : 1 + random() % 20000;
  std::string text(bytes + 8, '\0');
  for (size_t i = 0; i + 8 <= text.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(text.data() + i, &word, 8);
  }
  return text + std::to_string(number);
}

std::vector<int32_t> IdsOf(uint64_t number) { return std::vector<int32_t>(1 + number % 4000, 3); }

void KillAfter(std::chrono::microseconds delay) {
  std::thread([delay] {
    std::this_thread::sleep_for(delay);
    ::kill(::getpid(), SIGKILL);
  }).detach();
}

// Adds documents and writes each acknowledged number to stdout, until a thread kills the process: mostly
// while adding, one time in five perhaps while opening.
int AddUntilKilled(const std::string& data_dir, uint64_t seed) {
  const std::chrono::microseconds delay(std::mt19937_64(seed)() % 250000);
  if (seed % 5 == 1) KillAfter(delay);
  const auto catalog = Catalog::Open(data_dir);
  if (!catalog.ok()) {
    std::fprintf(stderr, "%s\n", Message(catalog.status()).c_str());
    return 1;
  }
  if (seed % 5 != 1) KillAfter(delay);
  for (uint64_t number = seed * 1000;; ++number) {
    const auto added = (*catalog)->Add("crash", TextOf(number), "tok", IdsOf(number));
    if (!added.ok()) {
      std::fprintf(stderr, "%s\n", Message(added.status()).c_str());
      return 1;
    }
    if (::write(STDOUT_FILENO, &number, sizeof number) != sizeof number) return 1;
    if (number % 7 == 3 && !(*catalog)->PutTokenIds(added->info.id, "other", IdsOf(number + 1)).ok())
      return 1;
  }
}

// Runs one such process to its end; the numbers it acknowledged.
std::vector<uint64_t> RunAndKill(const std::string& data_dir, int round) {
  int acknowledged[2];
  PALIMPSEST_CHECK(::pipe(acknowledged) == 0);
  const std::string seed = std::to_string(round + 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(acknowledged[1], STDOUT_FILENO);
    ::close(acknowledged[0]);
    ::execl("/proc/self/exe", "catalog_crash_test", "--add-until-killed", data_dir.c_str(), seed.c_str(),
            nullptr);
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
      << "round " << round << " status " << status;
  return numbers;
}

TEST(CatalogCrashTest, WhatWasAcknowledgedSurvivesKillsAtAnyTime) {
  TemporaryFolder temporary;
  const std::string data_dir = temporary.path() + "/data";
  std::vector<uint64_t> acknowledged;
  double open_seconds_max = 0;
  int round = 0;
  for (; round < kRounds || (acknowledged.size() < kAcknowledgedMin && round < kRoundsMax); ++round) {
    for (uint64_t number : RunAndKill(data_dir, round)) acknowledged.push_back(number);
    const auto start = std::chrono::steady_clock::now();
    const auto catalog = Catalog::Open(data_dir);
    open_seconds_max = std::max(
        open_seconds_max, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    ASSERT_TRUE(catalog.ok()) << "round " << round << ": " << catalog.status();
    // Each listed document is whole; it may be one that was written and not yet acknowledged.
    const auto list = (*catalog)->List();
    ASSERT_TRUE(list.ok()) << list.status();
    const size_t first_of_round = acknowledged.size() > 8 ? acknowledged.size() - 8 : 0;
    for (size_t i = first_of_round; i < acknowledged.size(); ++i) {
      const auto known = (*catalog)->FindByContent(TextOf(acknowledged[i]));
      ASSERT_TRUE(known.ok() && known->has_value())
          << "round " << round << ": document " << acknowledged[i] << " is lost";
      const auto document = (*catalog)->Get((*known)->id, "tok");
      ASSERT_TRUE(document.ok()) << document.status();
      EXPECT_EQ(document->token_ids, IdsOf(acknowledged[i]));
    }
  }
  const auto catalog = Catalog::Open(data_dir);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  for (uint64_t number : acknowledged) {
    const auto known = (*catalog)->FindByContent(TextOf(number));
    ASSERT_TRUE(known.ok() && known->has_value()) << "document " << number << " is lost";
  }
  const auto list = (*catalog)->List();
  ASSERT_TRUE(list.ok());
  for (const DocumentInfo& info : *list) {
    const auto document = (*catalog)->Get(info.id, "tok");  // compares the text's SHA-256
    ASSERT_TRUE(document.ok()) << document.status();
    EXPECT_EQ(static_cast<int64_t>(document->token_ids.size()), info.tokens);
  }
  EXPECT_GE(list->size(), acknowledged.size());
  EXPECT_LE(list->size(), acknowledged.size() + static_cast<size_t>(round));
  EXPECT_GE(acknowledged.size(), kAcknowledgedMin) << "the kills came too early to test anything";
  std::printf("kills %d, acknowledged %zu, lost 0, present %zu, longest reopen %.2f s\n", round,
              acknowledged.size(), list->size(), open_seconds_max);
}

}  // namespace
}  // namespace palimpsest

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--add-until-killed") {
    return palimpsest::AddUntilKilled(argv[2], std::strtoull(argv[3], nullptr, 10));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
