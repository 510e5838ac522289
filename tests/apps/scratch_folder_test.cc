#include "apps/scratch_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

TEST(ScratchFolderTest, IsPrivateAndGoesWithAllInIt) {
  TemporaryFolder data;
  std::string path;
  {
    const auto scratch = ScratchFolder::Make(data.path(), "niah");
    ASSERT_TRUE(scratch.ok()) << scratch.status();
    path = (*scratch)->path();
    EXPECT_THAT(path, testing::StartsWith(data.path() + "/scratch/niah-"));
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0700u);
    fs::create_directories(path + "/tier/0");
    std::ofstream(path + "/tier/0/file") << "x";
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFolderTest, WhatADeadProcessLeftGoesAndWhatIsInUseStays) {
  TemporaryFolder data;
  const fs::path left = data.path() + "/scratch/bench-000000", young = data.path() + "/scratch/bench-111111";
  fs::create_directories(left);
  std::ofstream(left / "in_use") << "";
  std::ofstream(left / "tier") << "x";
  fs::create_directories(young);
  const auto first = ScratchFolder::Make(data.path(), "niah");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(young)) << "it has no lock yet: someone makes it now";
  const auto second = ScratchFolder::Make(data.path(), "niah");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(fs::exists((*first)->path()));
  EXPECT_NE((*first)->path(), (*second)->path());
}

TEST(ScratchFolderTest, NothingOutsideIsRemoved) {
  TemporaryFolder data;
  const fs::path outside = data.path() + "/documents";
  fs::create_directories(outside);
  std::ofstream(outside / "in_use") << "";
  fs::create_directories(data.path() + "/scratch");
  fs::create_directory_symlink(outside, data.path() + "/scratch/link");
  ASSERT_TRUE(ScratchFolder::Make(data.path(), "niah").ok());
  EXPECT_TRUE(fs::exists(outside / "in_use"));
}

TEST(ScratchFolderTest, AFileInTheWayIsSaid) {
  TemporaryFolder data;
  std::ofstream(data.path() + "/scratch") << "x";
  const auto scratch = ScratchFolder::Make(data.path(), "niah");
  EXPECT_EQ(scratch.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(scratch.status()), testing::HasSubstr("scratch"));
}

}  // namespace
}  // namespace palimpsest
