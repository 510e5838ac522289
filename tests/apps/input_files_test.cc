#include "apps/input_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class InputFilesTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  std::string Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(Path(name)).parent_path());
    std::ofstream(Path(name)) << text;
    return Path(name);
  }
  absl::StatusOr<std::string> Read(const std::string& path, int64_t bytes_max = 1000) const {
    return ReadInput(path, bytes_max, CancelToken::Never());
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(InputFilesTest, FoldersBecomeTheirTextFilesInOrder) {
  for (const char* name : {"d/b.txt", "d/a.md", "d/c.pdf", "d/sub/e.txt", "d/.hidden.txt", "d/.git/f.md"}) {
    Write(name, "x");
  }
  const std::string alone = Write("alone.csv", "x");
  const auto files = ExpandFolders({alone, Path("d"), "-"});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre(alone, Path("d/a.md"), Path("d/b.txt"), Path("d/sub/e.txt"), "-"));
}

TEST_F(InputFilesTest, FolderWithoutTextFilesIsAnError) {
  Write("d/c.pdf", "x");
  const auto files = ExpandFolders({Path("d")});
  EXPECT_EQ(files.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(files.status()), AllOf(HasSubstr(Path("d")), HasSubstr("no .txt or .md files")));
}

TEST_F(InputFilesTest, AllBytesOfAFileComeBack) {
  const std::string text(300'000, '\0');
  EXPECT_EQ(*Read(Write("a.txt", text), 300'000), text);
  EXPECT_EQ(*Read(Write("empty.txt", "")), "");
}

TEST_F(InputFilesTest, FileAboveTheLimitIsRefusedWithBothNumbers) {
  const auto text = Read(Write("a.txt", std::string(1001, 'x')));
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(text.status()),
              AllOf(HasSubstr("a.txt"), HasSubstr("1001 bytes"), HasSubstr("at most 1000")));
}

TEST_F(InputFilesTest, EndlessFileIsRefused) {
  EXPECT_THAT(Message(Read("/dev/zero").status()), HasSubstr("more than 1000 bytes"));
}

TEST_F(InputFilesTest, MissingFileAndFolderAreNamed) {
  EXPECT_EQ(Read(Path("none.txt")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(Read(Path("none.txt")).status()), HasSubstr("none.txt"));
  Write("d/a.txt", "x");
  EXPECT_THAT(Message(Read(Path("d")).status()), HasSubstr("is a folder"));
}

TEST_F(InputFilesTest, ReadingEndsWhenCancelled) {
  CancelToken cancel;
  cancel.Set();
  EXPECT_EQ(ReadInput("/dev/zero", int64_t{1} << 40, cancel).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace palimpsest
