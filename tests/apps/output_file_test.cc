#include "apps/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class OutputFileTest : public ::testing::Test {
 protected:
  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  int64_t Files() const {
    return std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator());
  }
  // Both refuse with the same words.
  static void ExpectRefused(const std::string& path, absl::StatusCode code, const std::string& words) {
    for (const absl::Status& status : {CheckOutputFile(path), WriteOutputFile(path, "x")}) {
      EXPECT_EQ(status.code(), code) << status;
      EXPECT_THAT(Message(status), HasSubstr(words));
    }
  }

  TemporaryFolder folder_;
};

TEST_F(OutputFileTest, HoldsTheBytesAndNothingElseIsLeft) {
  const std::string bytes("a\0b", 3);
  ASSERT_TRUE(CheckOutputFile(folder_.File("out.html")).ok());
  EXPECT_EQ(Files(), 0) << "a check writes nothing";
  ASSERT_TRUE(WriteOutputFile(folder_.File("out.html"), bytes).ok());
  EXPECT_EQ(Read(folder_.File("out.html")), bytes);
  EXPECT_EQ(Files(), 1);
}

TEST_F(OutputFileTest, ReplacesAFileAndKeepsItsRights) {
  const std::string path = folder_.File("out.html");
  std::ofstream(path) << "older and longer";
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  ASSERT_TRUE(WriteOutputFile(path, "new").ok());
  EXPECT_EQ(Read(path), "new");
  struct stat file {};
  ASSERT_EQ(::stat(path.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0640U);
}

TEST_F(OutputFileTest, LinkIsFollowedAndStays) {
  std::ofstream(folder_.File("real.html")) << "old";
  fs::create_symlink("real.html", folder_.File("link.html"));
  ASSERT_TRUE(WriteOutputFile(folder_.File("link.html"), "new").ok());
  EXPECT_TRUE(fs::is_symlink(folder_.File("link.html")));
  EXPECT_EQ(Read(folder_.File("real.html")), "new");
}

TEST_F(OutputFileTest, RefusesWhatIsNoFileAndSaysWhy) {
  ExpectRefused(folder_.path(), absl::StatusCode::kInvalidArgument, "is a folder");
  ExpectRefused(folder_.File("new/"), absl::StatusCode::kInvalidArgument, "names a folder");
  ExpectRefused("/dev/null", absl::StatusCode::kInvalidArgument, "no regular file");
  ExpectRefused("-", absl::StatusCode::kInvalidArgument, "'-'");
  ExpectRefused(folder_.File("none/out.html"), absl::StatusCode::kNotFound, "folder does not exist");
  std::ofstream(folder_.File("file")) << "x";
  ExpectRefused(folder_.File("file/out.html"), absl::StatusCode::kNotFound, "folder does not exist");
  EXPECT_FALSE(fs::exists("/dev/null") && fs::is_regular_file("/dev/null"));
}

TEST_F(OutputFileTest, FolderWithoutRightsIsRefused) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::permissions(folder_.path(), fs::perms::owner_read | fs::perms::owner_exec);
  ExpectRefused(folder_.File("out.html"), absl::StatusCode::kPermissionDenied, "may not be written");
  fs::permissions(folder_.path(), fs::perms::owner_all);
}

}  // namespace
}  // namespace palimpsest
