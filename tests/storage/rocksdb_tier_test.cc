// The tier on SSD beyond the contract: restarts, eviction on disk and who may open the folder.
// Damage, full disks and kills have tests of their own beside this one.
#include "storage/tier/rocksdb_tier.h"

#include <gtest/gtest.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/rocksdb_tier_fixture.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;

constexpr int64_t kPlenty = 1 << 30;

int64_t FolderBytes(const std::string& folder) {
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

void WriteText(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

// ---- restarts

TEST_F(RocksDbTierTest, ANewProcessFindsEverythingBitForBit) {
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(tier_->Name(), "ssd");
  EXPECT_EQ(report_.values, 0);
  std::vector<std::vector<TierItem>> batches;
  for (uint64_t number = 0; number < 12; ++number) batches.push_back(BatchOf(number));
  batches.push_back({ItemOf(TestBlockId(9001), 1, 1), ItemOf(TestBlockId(9002), 40, 1)});
  std::vector<TierItem> tiles;  // enough neighbours that a value's parts are read by jumping
  for (uint64_t i = 0; i < 12; ++i) tiles.push_back(ItemOf(TestBlockId(9100 + i), 9, 16 << 10));
  batches.push_back(tiles);
  int64_t bytes = 0, values = 0;
  for (const auto& items : batches) {
    ASSERT_TRUE(tier_->Put(items).ok());
    bytes += BytesOf(items), values += static_cast<int64_t>(items.size());
    ExpectFound(items);
  }
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(report_.values, values);
  EXPECT_EQ(report_.bytes, bytes);
  EXPECT_EQ(report_.dropped_batches, 0);
  EXPECT_EQ(report_.quarantined, "");
  EXPECT_EQ(tier_->Stats().used_bytes, bytes);
  EXPECT_EQ(tier_->Stats().values, values);
  for (const auto& items : batches) ExpectFound(items);
  ASSERT_TRUE(tier_->Put(BatchOf(0)).ok());
  EXPECT_EQ(tier_->Stats().known_puts, static_cast<int64_t>(batches[0].size()));
}

TEST_F(RocksDbTierTest, EveryValueIsVisited) {
  ASSERT_TRUE(Open().ok());
  std::vector<TierItem> items;
  for (uint64_t number = 0; number < 5; ++number) {
    const auto batch = BatchOf(number);
    ASSERT_TRUE(tier_->Put(batch).ok());
    items.insert(items.end(), batch.begin(), batch.end());
  }
  size_t visited = 0;
  const auto check = [&](const TierKey& key, uint32_t parts, const absl::StatusOr<TierView>& view) {
    EXPECT_TRUE(view.ok()) << view.status();
    const auto item = std::find_if(items.begin(), items.end(), [&](const auto& i) { return i.key == key; });
    EXPECT_TRUE(item != items.end() && item->parts == parts && IsWhole(*item, *view)) << key.ToString();
    ++visited;
    return true;
  };
  ASSERT_TRUE(VisitRocksDbTier(*tier_, check).ok());
  EXPECT_EQ(visited, items.size());
  EXPECT_EQ(tier_->Stats().hits, 0) << "a visit is not a use";
  visited = 0;
  ASSERT_TRUE(VisitRocksDbTier(*tier_, [&](const auto&, auto, const auto&) { return ++visited < 3; }).ok());
  EXPECT_EQ(visited, 3u);
}

TEST_F(RocksDbTierTest, AnErasedValueStaysErasedAndItsBytesStayUntilItsNeighboursGo) {
  ASSERT_TRUE(Open().ok());
  const std::vector<TierItem> items = {ItemOf(TestBlockId(1), 2, 500), ItemOf(TestBlockId(2), 3, 600)};
  ASSERT_TRUE(tier_->Put(items).ok());
  ASSERT_TRUE(tier_->Erase(items[0].key).ok());
  EXPECT_EQ(tier_->Stats().used_bytes, 2800);
  for (int restart = 0; restart < 2; ++restart) {
    ExpectMissed({items[0]});
    ExpectFound({items[1]});
    EXPECT_EQ(tier_->Stats().values, 1);
    EXPECT_EQ(tier_->Stats().used_bytes, 2800);
    ASSERT_TRUE(Open().ok());
  }
  ASSERT_TRUE(tier_->Put(items).ok()) << "what was erased may be put again";
  EXPECT_EQ(tier_->Stats().used_bytes, 3800);
  ExpectFound(items);
  ASSERT_TRUE(tier_->Erase(items[1].key).ok());
  EXPECT_EQ(tier_->Stats().used_bytes, 1000);
  ASSERT_TRUE(Open().ok());
  ExpectFound({items[0]});
  EXPECT_EQ(report_.bytes, 1000);
}

// Who finds damage does not wait for a disk that hangs while something is written to it.
TEST_F(RocksDbTierTest, ErasingDoesNotWaitForAWriteThatHangs) {
  std::promise<void> hangs, goes_on;
  std::atomic<bool> stop{false};
  RocksDbTierOptions options;
  options.at_point = [&](std::string_view point) {
    if (point != "before ingest" || !stop.exchange(false)) return;
    hangs.set_value();
    goes_on.get_future().wait();
  };
  ASSERT_TRUE(Open(options).ok());
  const std::vector<TierItem> items = {ItemOf(TestBlockId(1), 2, 500), ItemOf(TestBlockId(2), 3, 600)};
  const std::vector<TierItem> alone = {ItemOf(TestBlockId(3), 2, 500)},
                              next = {ItemOf(TestBlockId(4), 1, 70)};
  ASSERT_TRUE(tier_->Put(items).ok());
  ASSERT_TRUE(tier_->Put(alone).ok());
  stop = true;
  std::thread writer([&] { EXPECT_TRUE(tier_->Put(next).ok()); });
  hangs.get_future().wait();
  auto erased = std::async(std::launch::async, [&] {
    for (const TierKey& key : {items[0].key, alone[0].key, TierKey(TestBlockId(9))})
      EXPECT_TRUE(tier_->Erase(key).ok());
  });
  EXPECT_EQ(erased.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  ExpectMissed({items[0], alone[0]});
  goes_on.set_value();
  writer.join();
  erased.get();
  ExpectFound({items[1], next[0]});
  EXPECT_EQ(tier_->Stats().used_bytes, 2800 + 1000 + 70);
  ASSERT_TRUE(tier_->Put(std::vector{ItemOf(TestBlockId(5), 1, 5)}).ok());
  EXPECT_EQ(tier_->Stats().used_bytes, 2800 + 70 + 5) << "the next write drops what is empty";
  ASSERT_TRUE(tier_->Put(items).ok()) << "what was erased may be put again";
  ExpectFound(items);
  ASSERT_TRUE(Open().ok());
  ExpectFound({items[0], items[1], next[0]});
  EXPECT_EQ(report_.damaged_batches, 0);
}

// An empty tier begins to count its batches anew: what was erased under the old numbers must not hide the
// new.
TEST_F(RocksDbTierTest, BatchNumbersMayComeAgain) {
  for (uint64_t round = 0; round < 3; ++round) {
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(report_.values, 0);
    EXPECT_EQ(report_.dropped_batches, 0);
    const std::vector<TierItem> items = {ItemOf(TestBlockId(round), 2, 500),
                                         ItemOf(TestBlockId(round + 10), 2, 500)};
    ASSERT_TRUE(tier_->Put(items).ok());
    ASSERT_TRUE(Open().ok());
    ExpectFound(items);
    for (const TierItem& item : items) ASSERT_TRUE(tier_->Erase(item.key).ok());
    EXPECT_EQ(tier_->Stats().used_bytes, 0);
  }
}

// The folder as a crash leaves it: that the key was erased before it was put again is forgotten.
TEST_F(RocksDbTierTest, OfAKeyThatWasPutTwiceACrashLeavesTheNewer) {
  const TierItem older = ItemOf(TestBlockId(1), 2, 500), newer = ItemOf(TestBlockId(1), 2, 700);
  const TierItem other = ItemOf(TestBlockId(2), 2, 300);
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(tier_->Put(std::vector{older, other}).ok());
  ASSERT_TRUE(tier_->Erase(older.key).ok());
  ASSERT_TRUE(tier_->Put(std::vector{newer}).ok());
  const std::string crashed = temporary_.File("crashed");
  fs::copy(folder_, crashed, fs::copy_options::recursive);
  ASSERT_TRUE(Open({.folder = crashed}).ok());
  EXPECT_EQ(report_.values, 2);
  ExpectFound({newer, other});
  ASSERT_TRUE(tier_->Erase(newer.key).ok());
  ASSERT_TRUE(Open({.folder = crashed}).ok());
  EXPECT_FALSE(tier_->Contains(newer.key));
  ExpectFound({other});
}

TEST_F(RocksDbTierTest, ADamagedValueIsReportedOnceAndThenAMiss) {
  for (const bool direct : {true, false}) {
    SCOPED_TRACE(direct);
    const std::string folder = temporary_.File(direct ? "direct" : "buffered");
    ASSERT_TRUE(Open({.folder = folder, .direct_reads = direct}).ok());
    const std::vector<TierItem> items = BatchOf(4);
    ASSERT_TRUE(tier_->Put(items).ok());
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".sst" || entry.file_size() < 50000) continue;
      std::fstream stream(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      stream.seekp(30000).write("broken", 6);  // within one part of one block group
    }
    std::vector<TierItem> lost;
    for (const TierItem& item : items) {
      const auto view = tier_->Get(item.key);
      if (view.ok()) {
        EXPECT_TRUE(IsWhole(item, *view));
      } else {
        EXPECT_EQ(view.status().code(), StatusCode::kDataLoss) << view.status();
        lost.push_back(item);
      }
    }
    ASSERT_EQ(lost.size(), 1u);
    EXPECT_EQ(tier_->Stats().damaged, 1);
    ExpectMissed(lost);
    ASSERT_TRUE(tier_->Put(lost).ok()) << "it was computed again";
    ExpectFound(items);
    ASSERT_TRUE(Open({.folder = folder, .direct_reads = direct}).ok());
    ExpectFound(items);
  }
}

// ---- eviction

TEST_F(RocksDbTierTest, EvictionDropsFilesAndSpace) {
  ASSERT_TRUE(Open({.capacity_bytes = 2 << 20}).ok());
  for (uint64_t i = 0; i < 20; ++i) {
    const std::vector<TierItem> batch = {ItemOf(TestBlockId(2 * i), 16, 16 << 10),
                                         ItemOf(TestBlockId(2 * i + 1), 16, 16 << 10)};
    ASSERT_TRUE(tier_->Put(batch).ok());
    ASSERT_LE(tier_->Stats().used_bytes, 2 << 20);
    ASSERT_LE(FolderBytes(folder_), (2 << 20) + (1 << 19)) << "batch " << i;
  }
  EXPECT_EQ(tier_->Stats().values, 8);
  EXPECT_EQ(tier_->Stats().evictions, 32);
  EXPECT_EQ(tier_->Stats().evicted_bytes, 32 << 18);
  ASSERT_TRUE(Open({.capacity_bytes = 2 << 20}).ok());
  EXPECT_EQ(report_.values, 8);
  EXPECT_EQ(report_.dropped_batches, 0);
  for (uint64_t i = 32; i < 40; ++i) ExpectFound({ItemOf(TestBlockId(i), 16, 16 << 10)});
}

TEST_F(RocksDbTierTest, ALoweredCapacityEvictsTheOldestAtOpen) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t i = 0; i < 5; ++i)
    ASSERT_TRUE(tier_->Put(TestBlockId(i), ValueOf(TestBlockId(i), 1000)).ok());
  ASSERT_TRUE(Open({.capacity_bytes = 2500}).ok());
  EXPECT_EQ(tier_->Stats().used_bytes, 2000);
  EXPECT_FALSE(tier_->Contains(TestBlockId(2)));
  ExpectFound({ItemOf(TestBlockId(3), 1, 1000), ItemOf(TestBlockId(4), 1, 1000)});
}

// ---- who may open it

TEST_F(RocksDbTierTest, ASecondOwnerIsToldTheFirst) {
  ASSERT_TRUE(Open().ok());
  const auto second = OpenRocksDbTier({.folder = folder_, .capacity_bytes = kPlenty, .lock_wait = {}});
  EXPECT_EQ(second.status().code(), StatusCode::kAborted);
  EXPECT_EQ(Message(second.status()),
            fmt::format("ssd tier '{}' is in use by process {}; stop it or use another folder", folder_,
                        ::getpid()));
  EXPECT_TRUE(tier_->Put(BatchOf(1)).ok()) << "the first goes on";
}

TEST_F(RocksDbTierTest, AnOwnerThatIsEndingIsWaitedFor) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(tier_->Put(BatchOf(1)).ok());
  std::thread ending([first = std::move(tier_)]() mutable {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    first.reset();
  });
  auto second = OpenRocksDbTier({.folder = folder_, .capacity_bytes = kPlenty});
  ending.join();
  ASSERT_TRUE(second.ok()) << second.status();
  tier_ = std::move(*second);
  ExpectFound(BatchOf(1));
}

// F11: what another version wrote is left as it is.
TEST_F(RocksDbTierTest, AnotherFormatIsRefusedAndKept) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(tier_->Put(BatchOf(1)).ok());
  tier_.reset();
  for (const int version : {0, 2, 10}) {
    WriteText(folder_ + "/format", fmt::format("palimpsest tier {}\n", version));
    const absl::Status refused = Open();
    EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(
        Message(refused),
        fmt::format("ssd tier '{}': written in format {}, this build knows format 1; use the build that "
                    "wrote it, or remove the folder (what it holds is computed again)",
                    folder_, version));
  }
  WriteText(folder_ + "/format", "palimpsest tier 1\n");
  ASSERT_TRUE(Open().ok());
  ExpectFound(BatchOf(1));
}

TEST_F(RocksDbTierTest, AnUnreadableFormatMarkerIsDamage) {
  for (const std::string& text :
       {std::string(), std::string("palimpsest tier one\n"), std::string(300, '\0')}) {
    ASSERT_TRUE(Open().ok());
    ASSERT_TRUE(tier_->Put(BatchOf(1)).ok());
    tier_.reset();
    WriteText(folder_ + "/format", text);
    ASSERT_TRUE(Open().ok());
    EXPECT_TRUE(report_.quarantined.starts_with(folder_ + ".damaged-")) << report_.quarantined;
    EXPECT_TRUE(fs::exists(report_.quarantined + "/db/CURRENT"));
    ExpectMissed(BatchOf(1));
    ASSERT_TRUE(tier_->Put(BatchOf(1)).ok());
  }
}

TEST_F(RocksDbTierTest, AFolderOfSomethingElseIsRefusedAndUntouched) {
  fs::create_directory(folder_);
  WriteText(folder_ + "/thesis.txt", "years of work");
  const absl::Status refused = Open();
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(refused).find("thesis.txt"), std::string::npos) << refused;
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(RocksDbTierTest, ACapacityThatTheDiskCannotHoldIsRefusedWithBothNumbers) {
  struct statvfs info;
  ASSERT_EQ(::statvfs(temporary_.path().c_str(), &info), 0);
  const int64_t disk = static_cast<int64_t>(info.f_blocks * info.f_frsize);
  const absl::Status refused = Open({.capacity_bytes = disk + 1});
  EXPECT_EQ(Message(refused),
            fmt::format("ssd tier '{}': capacity {} bytes, but its disk holds {}; lower the capacity",
                        folder_, disk + 1, disk));
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Open({.capacity_bytes = -1}).code(), StatusCode::kInvalidArgument);
}

TEST_F(RocksDbTierTest, AFolderThatCannotBeMadeIsUnavailable) {
  WriteText(temporary_.File("file"), "");
  EXPECT_EQ(Open({.folder = temporary_.File("file") + "/tier"}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(Open({.folder = temporary_.File("file")}).code(), StatusCode::kUnavailable);
}

TEST_F(RocksDbTierTest, TheFolderIsItsOwnersAlone) {
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(fs::status(folder_).permissions(), fs::perms::owner_all);
}

TEST_F(RocksDbTierTest, BufferedReadsFindTheSame) {
  ASSERT_TRUE(Open({.direct_reads = false}).ok());
  ASSERT_TRUE(tier_->Put(BatchOf(3)).ok());
  ExpectFound(BatchOf(3));
  ASSERT_TRUE(Open().ok());
  ExpectFound(BatchOf(3));
}

TEST_F(RocksDbTierTest, WhatACrashLeftIsRemovedAtOpen) {
  ASSERT_TRUE(Open().ok());
  tier_.reset();
  fs::create_directory(folder_ + "/db.new");
  WriteText(folder_ + "/db.new/CURRENT", "half");
  WriteText(folder_ + "/new/7.block.sst", "half");
  ASSERT_TRUE(Open().ok());
  EXPECT_FALSE(fs::exists(folder_ + "/db.new"));
  EXPECT_TRUE(fs::is_empty(folder_ + "/new"));
}

}  // namespace
}  // namespace palimpsest
