// F2, F4, F10 and F27 of the fault matrix: whatever happened to the files of a tier on SSD, opening it
// succeeds, and a Get is right, an error or a miss; never other bytes.
#include <gtest/gtest.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "proto/base/log.h"
#include "proto/base/status.h"
#include "tests/testing/rocksdb_tier_fixture.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;

std::vector<fs::path> FilesOf(const std::string& folder, const std::string& ending = "") {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().string().ends_with(ending)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void FlipBit(const fs::path& file, uint64_t random) {
  const auto bits = static_cast<uint64_t>(fs::file_size(file)) * 8;
  if (bits == 0) return;
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const uint64_t bit = random % bits;
  stream.seekg(static_cast<std::streamoff>(bit / 8));
  const int byte = stream.get();
  stream.seekp(static_cast<std::streamoff>(bit / 8));
  stream.put(static_cast<char>(byte ^ (1 << (bit % 8))));
}

// Hundreds of tiers are opened here, each of which waits for a disk some thirty times: in memory where there
// is a file system for it. Tests of direct reads are in rocksdb_tier_test.cc.
const bool kInMemory =
    ::access("/dev/shm", W_OK) == 0 && ::setenv("TMPDIR", "/dev/shm", /*overwrite=*/0) == 0;

// What reading every value, whole and in parts, gave.
struct Reading {
  int right = 0, refused = 0, wrong = 0;
};

class RocksDbTierDamageTest : public RocksDbTierTest {
 protected:
  void SetUp() override {
    RecordProperty("in_memory", kInMemory);
    InitLog({.level = LogLevel::kError});
  }  // each damage is a warning
  void TearDown() override { InitLog({}); }

  // Leaves an orderly closed tier in `folder`.
  void Fill(const std::string& folder, uint64_t first, uint64_t batches, size_t part_bytes = 2000) {
    ASSERT_TRUE(Open({.folder = folder}).ok());
    for (uint64_t number = first; number < first + batches; ++number) {
      const std::vector<TierItem> batch = BatchOf(number, part_bytes);
      ASSERT_TRUE(tier_->Put(batch).ok());
      items_.insert(items_.end(), batch.begin(), batch.end());
    }
    tier_.reset();
  }

  Reading ReadAll() {
    Reading reading;
    const auto count = [&](const absl::StatusOr<TierView>& view, const std::function<bool()>& right) {
      if (view.ok()) {
        ++(right() ? reading.right : reading.wrong);
        return;
      }
      ++reading.refused;
      EXPECT_TRUE(view.status().code() == StatusCode::kNotFound ||
                  view.status().code() == StatusCode::kDataLoss)
          << view.status();
    };
    for (const TierItem& item : items_) {
      for (uint32_t part = 0; part < item.parts; ++part) {
        const auto view = tier_->GetPart(item.key, part);
        count(view, [&] { return IsPart(item, part, *view); });
      }
      const auto whole = tier_->Get(item.key);
      count(whole, [&] { return IsWhole(item, *whole); });
    }
    EXPECT_EQ(reading.wrong, 0);
    return reading;
  }

  // Restores the folder from the copy, does the damage, opens and reads; then the tier must store and find
  // again.
  Reading OpenDamaged(const std::string& copy, const std::function<void()>& damage) {
    tier_.reset();
    fs::remove_all(folder_);
    fs::copy(copy, folder_, fs::copy_options::recursive);
    damage();
    const absl::Status opened = Open();
    EXPECT_TRUE(opened.ok()) << opened;
    if (!opened.ok()) return {};
    const Reading reading = ReadAll();
    const std::vector<TierItem> fresh = {ItemOf(TestBlockId(777777), 3, 500)};
    const absl::Status put = tier_->Put(fresh);
    EXPECT_TRUE(put.ok()) << put;
    ExpectFound(fresh);
    if (!report_.quarantined.empty()) fs::remove_all(report_.quarantined);
    return reading;
  }

  std::vector<TierItem> items_;
};

// F2, in table files that are open: most flips meet bytes of values.
TEST_F(RocksDbTierDamageTest, BitsFlippedUnderAnOpenTierAreNeverReturned) {
  Fill(folder_, 0, 20, 8000);
  ASSERT_TRUE(Open().ok());
  std::mt19937_64 random(1);
  const std::vector<fs::path> files = FilesOf(folder_, ".sst");
  const int flips = 2000;
  for (int i = 0; i < flips; ++i) FlipBit(files[random() % files.size()], random());
  const Reading reading = ReadAll();
  EXPECT_GT(reading.refused, 300);
  EXPECT_GT(tier_->Stats().damaged, 30);
  RecordProperty("reads_right", reading.right);
  RecordProperty("reads_refused", reading.refused);
  EXPECT_EQ(tier_->Stats().values + tier_->Stats().damaged, static_cast<int64_t>(items_.size()));
}

TEST_F(RocksDbTierDamageTest, AVisitNamesWhatIsDamaged) {
  Fill(folder_, 4, 3);
  ASSERT_TRUE(Open().ok());
  for (const fs::path& file : FilesOf(folder_, ".sst")) {
    if (fs::file_size(file) > 50000) FlipBit(file, 8 * 30000);
  }
  int right = 0, damaged = 0;
  ASSERT_TRUE(VisitRocksDbTier(*tier_, [&](const TierKey&, uint32_t, const auto& view) {
                ++(view.ok() ? right : damaged);
                EXPECT_TRUE(view.ok() || view.status().code() == StatusCode::kDataLoss) << view.status();
                return true;
              }).ok());
  EXPECT_EQ(damaged, 1);
  EXPECT_EQ(right, static_cast<int>(items_.size()) - 1);
}

// F2, in any file of a closed tier, 20 at a time.
TEST_F(RocksDbTierDamageTest, BitsFlippedInAnyFileOfAClosedTierAreNeverReturned) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 0, 12);
  std::mt19937_64 random(2);
  int refused = 0, quarantined = 0;
  for (int round = 0; round < 40; ++round) {
    const Reading reading = OpenDamaged(copy, [&] {
      const std::vector<fs::path> files = FilesOf(folder_ + "/db", round % 2 == 0 ? ".sst" : "");
      for (int i = 0; i < 20; ++i) FlipBit(files[random() % files.size()], random());
    });
    refused += reading.refused > 0;
    quarantined += !report_.quarantined.empty();
  }
  EXPECT_GT(refused, 20);
  RecordProperty("rounds_quarantined", quarantined);
}

// F4: cut at each 512-byte boundary of a file of one batch.
TEST_F(RocksDbTierDamageTest, ATableFileCutAnywhereIsNeverReturned) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 2, 2, 1000);
  const std::vector<fs::path> files = FilesOf(copy, ".sst");
  const auto longest = *std::max_element(files.begin(), files.end(), [](const auto& a, const auto& b) {
    return fs::file_size(a) < fs::file_size(b);
  });
  const std::string name = fs::relative(longest, copy).string();
  for (uint64_t bytes = 0; bytes < fs::file_size(longest); bytes += 512) {
    const Reading reading = OpenDamaged(copy, [&] { fs::resize_file(folder_ + "/" + name, bytes); });
    EXPECT_GT(reading.refused, 0) << "cut at " << bytes;
  }
}

TEST_F(RocksDbTierDamageTest, ATableFileCutUnderAnOpenTierIsNeverReturned) {
  Fill(folder_, 0, 12);
  ASSERT_TRUE(Open().ok());
  std::mt19937_64 random(3);
  for (const fs::path& file : FilesOf(folder_, ".sst")) fs::resize_file(file, random() % fs::file_size(file));
  EXPECT_GT(ReadAll().refused, 0);
}

// F10: each kind of file, gone, emptied, cut and flipped.
TEST_F(RocksDbTierDamageTest, AnyFileMissingOrSpoiltLeavesATierThatOpens) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 3, 1);
  std::mt19937_64 random(4);
  const std::vector<std::function<void(const fs::path&)>> damages = {
      [](const fs::path& file) { fs::remove(file); },
      [](const fs::path& file) { fs::resize_file(file, 0); },
      [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); },
      [&](const fs::path& file) { FlipBit(file, random()); },
      [&](const fs::path& file) { std::ofstream(file) << "something else\n"; },
  };
  for (const fs::path& file : FilesOf(copy + "/db")) {
    const std::string name = fs::relative(file, copy).string();
    for (size_t damage = 0; damage < damages.size(); ++damage) {
      SCOPED_TRACE(fmt::format("{} damage {}", name, damage));
      OpenDamaged(copy, [&] { damages[damage](folder_ + "/" + name); });
    }
  }
}

TEST_F(RocksDbTierDamageTest, AFolderThatIsGoneIsNotCalledAFullDisk) {
  ASSERT_TRUE(Open().ok());
  fs::remove_all(folder_);
  const absl::Status gone = tier_->Put(TestBlockId(1), ValueOf(TestBlockId(1), 1000));
  EXPECT_EQ(gone.code(), absl::StatusCode::kUnavailable) << gone;
  EXPECT_NE(Message(gone).find(folder_), std::string::npos) << gone;
  EXPECT_EQ(Message(gone).find("full"), std::string::npos) << gone;
  ExpectMissed({ItemOf(TestBlockId(1), 1, 1000)});
}

TEST_F(RocksDbTierDamageTest, AMissingManifestOrCurrentIsQuarantined) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 3, 1);
  for (const fs::path& file : FilesOf(copy + "/db")) {
    const std::string name = file.filename().string();
    if (name != "CURRENT" && !name.starts_with("MANIFEST")) continue;
    const Reading reading = OpenDamaged(copy, [&] { fs::remove(folder_ + "/db/" + name); });
    EXPECT_EQ(reading.right, 0);
    EXPECT_TRUE(report_.quarantined.starts_with(folder_ + ".damaged-")) << name << report_.quarantined;
  }
}

// Beyond the first files, which RocksDB opens itself, one that was cut costs its batch only.
TEST_F(RocksDbTierDamageTest, InALargeTierACutFileCostsItsBatch) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 0, 30);
  const std::vector<fs::path> files = FilesOf(copy, ".sst");
  int kept = 0;
  for (size_t which = 0; which < files.size(); which += 7) {
    const std::string name = fs::relative(files[which], copy).string();
    const Reading reading =
        OpenDamaged(copy, [&] { fs::resize_file(folder_ + "/" + name, fs::file_size(files[which]) - 1); });
    if (!report_.quarantined.empty()) continue;
    ++kept;
    EXPECT_EQ(report_.dropped_batches, 1) << name;
    EXPECT_EQ(report_.damaged_batches, 1) << name;
    EXPECT_GT(reading.right, reading.refused * 10) << name;
  }
  EXPECT_GT(kept, 5);
}

// Many small files of the directory become one at open; erasing, evicting and damage work on that one too.
TEST_F(RocksDbTierDamageTest, ADirectoryOfManyFilesIsMergedAtOpen) {
  constexpr int64_t kCapacity = 1050 * 20;
  ASSERT_TRUE(Open({.capacity_bytes = kCapacity}).ok());
  const auto item = [](uint64_t i) { return ItemOf(TestBlockId(i), 2, 10); };
  for (uint64_t i = 0; i < 1050; ++i) ASSERT_TRUE(tier_->Put(std::vector{item(i)}).ok());
  tier_.reset();
  const size_t files = FilesOf(folder_, ".sst").size();
  EXPECT_EQ(files, 2 * 1050u);
  ASSERT_TRUE(Open({.capacity_bytes = kCapacity}).ok());
  EXPECT_EQ(report_.values, 1050);
  EXPECT_LT(FilesOf(folder_, ".sst").size(), files - 1000);
  for (uint64_t i = 2000; i < 2010; ++i) ASSERT_TRUE(tier_->Put(std::vector{item(i)}).ok());  // evicts 0 to 9
  ASSERT_TRUE(tier_->Erase(TestBlockId(500)).ok());
  for (int restart = 0; restart < 2; ++restart) {
    ASSERT_TRUE(Open({.capacity_bytes = kCapacity}).ok());
    EXPECT_EQ(report_.values, 1049);
    EXPECT_EQ(report_.dropped_batches, 0);
    EXPECT_FALSE(tier_->Contains(TestBlockId(9)));
    EXPECT_FALSE(tier_->Contains(TestBlockId(500)));
    for (const uint64_t i : {10, 499, 1049, 2000, 2009}) ExpectFound({item(i)});
  }
}

// Entries of a merged directory outlive a crash between the drops of a batch's kinds: what is left of the
// batch is not called whole.
TEST_F(RocksDbTierDamageTest, ABatchThatLostOneOfItsKindsIsDropped) {
  Fill(folder_, 1, 3);
  {
    const rocksdb::Options options;
    std::vector<std::string> names;
    const std::string path = folder_ + "/db";
    ASSERT_TRUE(rocksdb::DB::ListColumnFamilies(options, path, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* opened = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, path, families, &handles, &opened).ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    for (rocksdb::ColumnFamilyHandle* const handle : handles) {
      if (handle->GetName() == NameOf(ValueKind::kPicks)) {
        ASSERT_TRUE(rocksdb::DeleteFilesInRange(db.get(), handle, nullptr, nullptr).ok());
      }
      ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
    }
  }
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(report_.dropped_batches, 1);  // the third has picks
  for (const TierItem& item : BatchOf(3)) EXPECT_FALSE(tier_->Contains(item.key));
  for (const uint64_t number : {1, 2}) ExpectFound(BatchOf(number));
  ASSERT_TRUE(tier_->Put(BatchOf(3)).ok());
  ExpectFound(BatchOf(3));
}

// F3: valid tables in each other's place.
TEST_F(RocksDbTierDamageTest, TableFilesThatChangedPlacesAreNeverReturned) {
  const std::string copy = temporary_.File("copy");
  Fill(copy, 0, 12);
  std::mt19937_64 random(5);
  for (int round = 0; round < 8; ++round) {
    OpenDamaged(copy, [&] {
      std::vector<fs::path> files = FilesOf(folder_, ".sst");
      std::shuffle(files.begin(), files.end(), random);
      const size_t swaps = round % 2 == 0 ? 1 : 5;
      for (size_t i = 0; i < swaps; ++i) {
        fs::rename(files[2 * i], folder_ + "/swap");
        fs::rename(files[2 * i + 1], files[2 * i]);
        fs::rename(folder_ + "/swap", files[2 * i + 1]);
      }
    });
  }
}

// F27: a disk that went back to an older state of some of the files.
TEST_F(RocksDbTierDamageTest, FilesOfAnOlderStateAreNeverReturned) {
  const std::string older = temporary_.File("older"), newer = temporary_.File("newer");
  Fill(older, 0, 6);
  fs::copy(older, newer, fs::copy_options::recursive);
  ASSERT_TRUE(Open({.folder = newer}).ok());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(tier_->Erase(items_[static_cast<size_t>(i)].key).ok());
  Fill(newer, 6, 6);
  for (const char* which : {"MANIFEST", "CURRENT", ".sst", ""}) {
    OpenDamaged(newer, [&] {
      for (const fs::path& file : FilesOf(older + "/db")) {
        if (file.filename().string().find(which) == std::string::npos) continue;
        fs::copy_file(file, folder_ + "/db/" + file.filename().string(),
                      fs::copy_options::overwrite_existing);
      }
    });
  }
}

}  // namespace
}  // namespace palimpsest
