// F8 of the fault matrix: a disk without space, injected below RocksDB and real.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/rocksdb_tier_fixture.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;

// The machine's files; while `full`, those whose path contains `where` take no byte more.
class FullDisk final : public rocksdb::FileSystemWrapper {
 public:
  FullDisk() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FullDisk"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override {
    rocksdb::IOStatus status = target()->NewWritableFile(path, options, file, context);
    if (status.ok()) *file = std::make_unique<File>(std::move(*file), this, path);
    return status;
  }

  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override {
    if (frees && path.find("/new/") == std::string::npos) full = false;
    return target()->DeleteFile(path, options, context);
  }

  std::atomic<bool> full{false};
  std::atomic<bool> frees{false};  // a file of the database that goes makes room
  std::string where;

 private:
  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSWritableFile>&& file, const FullDisk* disk, std::string path)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {}
    using FSWritableFileOwnerWrapper::Append;
    using FSWritableFileOwnerWrapper::PositionedAppend;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override {
      if (IsFull()) return rocksdb::IOStatus::NoSpace();
      return FSWritableFileOwnerWrapper::Append(data, options, context);
    }
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t at,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* context) override {
      if (IsFull()) return rocksdb::IOStatus::NoSpace();
      return FSWritableFileOwnerWrapper::PositionedAppend(data, at, options, context);
    }

   private:
    bool IsFull() const { return disk_->full && path_.find(disk_->where) != std::string::npos; }

    const FullDisk* const disk_;
    const std::string path_;
  };
};

class FullDiskTest : public RocksDbTierTest {
 protected:
  // Puts until it works, as the caller's next spills would; RocksDB looks for space every 5 seconds.
  void ExpectWritingGoesOn(const std::vector<TierItem>& items) {
    absl::Status status;
    for (int attempt = 0; attempt < 300; ++attempt) {
      status = tier_->Put(items);
      if (status.ok()) return ExpectFound(items);
      EXPECT_TRUE(status.code() == StatusCode::kResourceExhausted ||
                  status.code() == StatusCode::kUnavailable)
          << status;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    FAIL() << status;
  }
};

class FullDiskAtTest : public FullDiskTest, public testing::WithParamInterface<const char*> {};

TEST_P(FullDiskAtTest, NothingIsHalfWrittenAndWritingGoesOn) {
  auto disk = std::make_shared<FullDisk>();
  disk->where = GetParam();
  ASSERT_TRUE(Open({.capacity_bytes = 100000, .file_system = disk}).ok());
  const std::vector<TierItem> first = BatchOf(4), second = BatchOf(9);  // some 50 KiB each
  ASSERT_TRUE(tier_->Put(first).ok());
  for (int round = 0; round < 2; ++round) {
    disk->full = true;
    const absl::Status full = tier_->Put(second);
    EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full;
    EXPECT_NE(Message(full).find("the disk is full"), std::string::npos) << full;
    EXPECT_TRUE(fs::is_empty(folder_ + "/new"));
    EXPECT_LE(tier_->Stats().used_bytes, 100000);
    EXPECT_EQ(tier_->Stats().refused_puts, (round + 1) * static_cast<int64_t>(second.size()));
    ExpectMissed(second);
    if (round == 0 && tier_->Stats().evictions == 0) ExpectFound(first);
    disk->full = false;
    if (round == 0) ExpectWritingGoesOn(BatchOf(14));
  }
  ExpectWritingGoesOn(second);
  ASSERT_TRUE(Open({.capacity_bytes = 100000}).ok());
  EXPECT_EQ(report_.quarantined, "");
  ExpectFound(second);
}

// The table files on their way in; the record of what files there are; everything.
INSTANTIATE_TEST_SUITE_P(Where, FullDiskAtTest, testing::Values("/new/", "MANIFEST", ""),
                         [](const auto& instance) {
                           return std::string(instance.param) == "/new/" ? "NewFiles"
                                  : *instance.param == 0                 ? "Everything"
                                                                         : "Manifest";
                         });

TEST_F(FullDiskTest, WhatCannotBeEvictedIsNotOverwritten) {
  auto disk = std::make_shared<FullDisk>();
  disk->where = "MANIFEST";  // where dropped files are noted
  ASSERT_TRUE(Open({.capacity_bytes = 3000, .file_system = disk}).ok());
  for (uint64_t i = 0; i < 3; ++i)
    ASSERT_TRUE(tier_->Put(TestBlockId(i), ValueOf(TestBlockId(i), 1000)).ok());
  disk->full = true;
  const std::vector<TierItem> next = {ItemOf(TestBlockId(3), 1, 1000)};
  EXPECT_EQ(tier_->Put(next).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(tier_->Put(next).code(), StatusCode::kResourceExhausted);
  for (uint64_t i = 1; i < 3; ++i) ExpectFound({ItemOf(TestBlockId(i), 1, 1000)});
  EXPECT_EQ(tier_->Stats().used_bytes, 3000) << "its file is still there";
  EXPECT_EQ(tier_->Stats().values, 2);
  disk->full = false;
  ExpectWritingGoesOn(next);
  EXPECT_EQ(tier_->Stats().used_bytes, 3000);
  EXPECT_EQ(tier_->Stats().evictions, 1);
}

// A disk may be full before the tier is: then, too, what was used longest ago goes, and no more than is
// needed.
TEST_F(FullDiskTest, OnAFullDiskTheOldestMakesRoom) {
  auto disk = std::make_shared<FullDisk>();
  disk->where = "/new/";
  disk->frees = true;
  ASSERT_TRUE(Open({.file_system = disk}).ok());
  const auto batch = [](uint64_t i) { return std::vector{ItemOf(TestBlockId(i), 2, 5000)}; };
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(tier_->Put(batch(i)).ok());
  tier_->Touch(std::vector{TierKey(TestBlockId(0))});
  disk->full = true;
  ASSERT_TRUE(tier_->Put(batch(4)).ok());
  ExpectMissed(batch(1));
  for (const uint64_t i : {0, 2, 3, 4}) ExpectFound(batch(i));
  EXPECT_EQ(tier_->Stats().evictions, 1);
  EXPECT_EQ(tier_->Stats().refused_puts, 0);
  // Where that does not help, or all there is would be too little, the put is refused.
  disk->frees = false;
  disk->full = true;
  EXPECT_EQ(tier_->Put(batch(5)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(tier_->Stats().evictions, 2);
  EXPECT_EQ(tier_->Put(std::vector{ItemOf(TestBlockId(6), 2, 50000)}).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(tier_->Stats().evictions, 2);
  disk->full = false;
  ExpectWritingGoesOn(batch(5));
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(report_.dropped_batches, 0);
  for (const uint64_t i : {3, 4, 5}) ExpectFound(batch(i));
}

// A small disk of its own.
class SmallDiskTest : public FullDiskTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting a small disk needs root";
    fs::create_directory(mount_);
    if (::mount("none", mount_.c_str(), "tmpfs", 0, "size=24m") != 0) {
      GTEST_SKIP() << "mounting is not allowed here: " << std::strerror(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    tier_.reset();
    if (mounted_) {
      EXPECT_EQ(::umount(mount_.c_str()), 0) << std::strerror(errno);
    }
  }
  // To the last byte, or up to some.
  void FillDisk(uintmax_t but_for_bytes = 0) {
    const int fd = ::open((mount_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const std::vector<char> page(4096, 'x');
    while ((but_for_bytes == 0 || fs::space(mount_).available > but_for_bytes) &&
           ::write(fd, page.data(), page.size()) > 0) {
    }
    ::close(fd);
  }
  void FreeDisk() { fs::remove(mount_ + "/filler"); }

  const std::string mount_ = temporary_.File("disk");
  bool mounted_ = false;
};

TEST_F(SmallDiskTest, ADiskFilledByOthersRefusesPutsUntilThereIsSpace) {
  RocksDbTierOptions options = {.folder = mount_ + "/tier", .capacity_bytes = 20 << 20};
  ASSERT_TRUE(Open(options).ok()) << "O_DIRECT or not";
  ASSERT_TRUE(tier_->Put(BatchOf(4)).ok());
  FillDisk();
  const absl::Status full = tier_->Put(BatchOf(9));
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full;
  ExpectFound(BatchOf(4));
  ExpectMissed(BatchOf(9));
  FreeDisk();
  ExpectWritingGoesOn(BatchOf(9));
  ExpectFound(BatchOf(4));
  FillDisk();
  EXPECT_EQ(Open(options).code(), StatusCode::kResourceExhausted);
  FreeDisk();
  ASSERT_TRUE(Open(options).ok());
  ExpectFound(BatchOf(4));
  ExpectFound(BatchOf(9));
}

// It holds less than the tier may: the newest stays, as in a tier that is full.
TEST_F(SmallDiskTest, ADiskThatIsSmallerThanTheTierIsNoEndOfWriting) {
  ASSERT_TRUE(Open({.folder = mount_ + "/tier", .capacity_bytes = 20 << 20}).ok());
  const auto batch = [](uint64_t i) { return std::vector{ItemOf(TestBlockId(i), 16, 64 << 10)}; };
  ASSERT_TRUE(tier_->Put(batch(0)).ok());
  FillDisk(/*but_for_bytes=*/8 << 20);
  for (uint64_t i = 1; i < 20; ++i) {
    const absl::Status put = tier_->Put(batch(i));
    ASSERT_TRUE(put.ok()) << i << ": " << put;
    ExpectFound(batch(i));
  }
  ExpectMissed(batch(0));
  ExpectFound(batch(18));
  EXPECT_GT(tier_->Stats().evictions, 10);
  EXPECT_LT(tier_->Stats().used_bytes, 6 << 20);
  EXPECT_EQ(tier_->Stats().refused_puts, 0);
}

TEST_F(SmallDiskTest, ADiskThatFillsWhileAPutIsUnderWayRefusesIt) {
  std::string fill_at;
  RocksDbTierOptions options = {.folder = mount_ + "/tier", .capacity_bytes = 20 << 20};
  options.at_point = [&](std::string_view point) {
    if (point == fill_at) FillDisk();
  };
  ASSERT_TRUE(Open(options).ok());
  ASSERT_TRUE(tier_->Put(BatchOf(4)).ok());
  uint64_t number = 9;
  for (const char* point : {"before files", "file written", "before ingest"}) {
    fill_at = point;
    const absl::Status full = tier_->Put(BatchOf(number));
    fill_at.clear();
    // What ingesting needs may still fit into a page that the files already have.
    if (!full.ok()) {
      EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << point << ": " << full;
      ExpectMissed(BatchOf(number));
    }
    ExpectFound(BatchOf(4));
    FreeDisk();
    ExpectWritingGoesOn(BatchOf(number));
    number += 5;
  }
  ASSERT_TRUE(Open(options).ok());
  EXPECT_EQ(report_.quarantined, "");
  for (; number > 4; number -= 5) ExpectFound(BatchOf(number - 5));
}

// A folder that is a mount point cannot be renamed; its database can.
TEST_F(SmallDiskTest, ADamagedTierOnADiskOfItsOwnIsMovedAsideInside) {
  RocksDbTierOptions options = {.folder = mount_, .capacity_bytes = 20 << 20};
  ASSERT_TRUE(Open(options).ok());
  tier_.reset();
  fs::remove(mount_ + "/db/CURRENT");
  ASSERT_TRUE(Open(options).ok());
  EXPECT_TRUE(report_.quarantined.starts_with(mount_ + "/damaged-")) << report_.quarantined;
  ASSERT_TRUE(tier_->Put(BatchOf(1)).ok());
  ExpectFound(BatchOf(1));
  ASSERT_TRUE(Open(options).ok());
  ExpectFound(BatchOf(1));
}

}  // namespace
}  // namespace palimpsest
