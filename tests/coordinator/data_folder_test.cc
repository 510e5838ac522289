#include "coordinator/data_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

mode_t Mode(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

class DataFolderTest : public testing::Test {
 protected:
  TemporaryFolder temporary_;
  const std::string path_ = temporary_.path() + "/data";
};

// Holds the folder in a process of its own until killed.
class Holder {
 public:
  explicit Holder(const std::string& path) {
    int ready[2];
    PALIMPSEST_CHECK(::pipe(ready) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const auto folder = DataFolder::Open(path, "palimpsest serve");
      const char answer = folder.ok() ? 'y' : 'n';
      if (::write(ready[1], &answer, 1) == 1) ::pause();
      ::_exit(0);
    }
    char answer = 'n';
    holds_ = ::read(ready[0], &answer, 1) == 1 && answer == 'y';
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Holder() { Kill(); }
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  bool holds() const { return holds_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  bool holds_ = false;
};

TEST_F(DataFolderTest, WhatIsMissingIsMadeForTheOwnerOnly) {
  const auto folder = DataFolder::Open(temporary_.path() + "/a/b/data/");
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ((*folder)->path(), temporary_.path() + "/a/b/data");
  for (const std::string& path : {(*folder)->path(), (*folder)->CatalogPath(), (*folder)->TierPath(),
                                  (*folder)->ModelsPath(), (*folder)->KeysPath()}) {
    EXPECT_EQ(Mode(path), 0700u) << path;
  }
}

TEST_F(DataFolderTest, ASecondProcessIsToldWhoHoldsTheFolder) {
  Holder holder(path_);
  ASSERT_TRUE(holder.holds());
  const auto second = DataFolder::Open(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      Message(second.status()),
      fmt::format(
          "data folder '{}' is in use by process {} (palimpsest serve); stop it or use another --data-dir",
          path_, holder.pid()));
}

TEST_F(DataFolderTest, AKilledProcessLeavesNoLock) {
  Holder holder(path_);
  ASSERT_TRUE(holder.holds());
  holder.Kill();
  EXPECT_TRUE(DataFolder::Open(path_).ok());
}

TEST_F(DataFolderTest, OneProcessOpensItOnceAtATime) {
  auto first = DataFolder::Open(path_, "palimpsest ask");
  ASSERT_TRUE(first.ok());
  const absl::Status second = DataFolder::Open(path_).status();
  EXPECT_NE(Message(second).find(fmt::format("process {} (palimpsest ask)", ::getpid())), std::string::npos);
  first->reset();
  EXPECT_TRUE(DataFolder::Open(path_).ok());
}

TEST_F(DataFolderTest, ALockFileOfOddContentDoesNotConfuse) {
  ASSERT_TRUE(DataFolder::Open(path_).ok());
  std::ofstream(path_ + "/lock") << "no pid \x1b[31m here";
  EXPECT_TRUE(DataFolder::Open(path_).ok());
}

TEST_F(DataFolderTest, AFileInItsPlaceIsAnError) {
  std::ofstream(path_) << "a file";
  absl::Status status = DataFolder::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status), fmt::format("data folder '{0}': '{0}' is not a directory", path_));
  status = DataFolder::Open(path_ + "/below").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_NE(Message(status).find("is not a directory"), std::string::npos) << status;
  EXPECT_EQ(DataFolder::Open("").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DataFolderTest, AFileInAPartsPlaceIsAnError) {
  ::mkdir(path_.c_str(), 0700);
  std::ofstream(path_ + "/tier") << "a file";
  EXPECT_EQ(Message(DataFolder::Open(path_).status()),
            fmt::format("data folder '{0}': '{0}/tier' is not a directory", path_));
}

TEST_F(DataFolderTest, KeysThatOthersMayReadAreRefused) {
  ASSERT_TRUE(DataFolder::Open(path_).ok());
  ASSERT_EQ(::chmod((path_ + "/keys").c_str(), 0750), 0);
  const absl::Status status = DataFolder::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(status).find("mode 0750"), std::string::npos) << status;
}

TEST_F(DataFolderTest, AFolderWithoutPermissionSaysSo) {
  ASSERT_TRUE(DataFolder::Open(path_).ok());
  ASSERT_EQ(::chmod(path_.c_str(), 0500), 0);
  // Root may write anywhere, so somebody else tries.
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0 && ::setuid(kNobody) != 0) ::_exit(2);
    ::_exit(DataFolder::Open(path_).status().code() == absl::StatusCode::kPermissionDenied ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  ::chmod(path_.c_str(), 0700);
  EXPECT_EQ(status, 0);
}

TEST_F(DataFolderTest, AReadOnlyDiskSaysSo) {
  ::mkdir(path_.c_str(), 0700);
  if (::mount("tmpfs", path_.c_str(), "tmpfs", MS_RDONLY, "size=1m") != 0)
    GTEST_SKIP() << "may not mount a tmpfs";
  const absl::Status status = DataFolder::Open(path_).status();
  ::umount(path_.c_str());
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_EQ(Message(status),
            fmt::format("data folder '{}' is on a read-only file system; use another --data-dir", path_));
}

}  // namespace
}  // namespace palimpsest
