#include "storage/data_key_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/storage/golden_tiles.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using Bytes = std::vector<uint8_t>;

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void WriteFile(const std::string& path, const Bytes& bytes, mode_t mode = 0600) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  ASSERT_EQ(::chmod(path.c_str(), mode), 0);
}

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

size_t FilesIn(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

class DataKeyFileTest : public testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<DataKey>> Load() { return DataKey::Load(key_, wrapped_); }
  Hash256 LoadedKey() {
    const auto key = Load();
    EXPECT_TRUE(key.ok()) << key.status();
    return key.ok() ? (*key)->Derive("which key") : Hash256{};
  }
  void ExpectError(StatusCode code, const std::vector<std::string>& words) {
    const absl::Status status = Load().status();
    EXPECT_EQ(status.code(), code) << status;
    for (const std::string& word : words) EXPECT_NE(Message(status).find(word), std::string::npos) << status;
  }

  const TemporaryFolder folder_;
  const std::string key_ = folder_.File("keys/of/ours/tier.key"), wrapped_ = folder_.File("tier/wrapped_key");
};

TEST_F(DataKeyFileTest, AFirstStartMakesBothFilesForTheirOwnerAlone) {
  ::umask(0);
  const Hash256 made = LoadedKey();
  for (const std::string& file : {key_, wrapped_}) EXPECT_EQ(ModeOf(file), 0600u) << file;
  for (const char* made_folder : {"keys", "keys/of", "keys/of/ours", "tier"})
    EXPECT_EQ(ModeOf(folder_.File(made_folder)), 0700u) << made_folder;
  EXPECT_EQ(FilesIn(folder_.File("keys/of/ours")), 1u) << "nothing is left of the making";
  EXPECT_EQ(FilesIn(folder_.File("tier")), 1u);
  EXPECT_EQ(LoadedKey(), made);
  EXPECT_NE((*Load())->number(), 0u);
}

TEST_F(DataKeyFileTest, AKeyFileServesSeveralTiersWithKeysOfTheirOwn) {
  const Hash256 one = LoadedKey();
  const auto two = DataKey::Load(key_, folder_.File("other/wrapped_key"));
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_NE((*two)->Derive("which key"), one);
  EXPECT_EQ(LoadedKey(), one);
}

TEST_F(DataKeyFileTest, TheWrappedFileHoldsNothingOfTheKey) {
  LoadedKey();
  const auto key = ParseKeyFile(ReadFile(key_));
  ASSERT_TRUE(key.ok());
  const Bytes wrapped = ReadFile(wrapped_);
  EXPECT_EQ(std::search(wrapped.begin(), wrapped.end(), key->bytes.begin(), key->bytes.end()), wrapped.end());
}

TEST_F(DataKeyFileTest, AWrappedKeyWithoutItsKeyFileSaysWhatToDo) {
  LoadedKey();
  fs::remove(key_);
  ExpectError(StatusCode::kFailedPrecondition,
              {key_, "restore the key file", fmt::format("or remove '{}'", wrapped_), "is computed again"});
  EXPECT_FALSE(fs::exists(key_)) << "a new one would not help, and would hide that the old one is gone";
}

TEST_F(DataKeyFileTest, AnotherKeyFileIsToldFromDamage) {
  LoadedKey();
  WriteFile(key_, GoldenFiles()[2].bytes);
  ExpectError(StatusCode::kFailedPrecondition, {wrapped_, "wrapped by another key", key_});
}

TEST_F(DataKeyFileTest, EveryTruncationOfEitherFileIsDataLoss) {
  LoadedKey();
  for (const std::string& file : {key_, wrapped_}) {
    const Bytes whole = ReadFile(file);
    for (size_t length = 0; length < whole.size(); ++length) {
      WriteFile(file, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)});
      ExpectError(StatusCode::kDataLoss, {file, "is cut short", "restore"});
    }
    Bytes longer = whole;
    longer.resize(1000);
    WriteFile(file, longer);
    ExpectError(StatusCode::kDataLoss, {file, "goes on after"});
    WriteFile(file, whole);
  }
  EXPECT_TRUE(Load().ok());
}

TEST_F(DataKeyFileTest, AKeyFileThatOthersMayOpenIsRefused) {
  LoadedKey();
  for (const mode_t mode : {0640, 0620, 0604, 0602, 0644, 0777, 0410}) {
    ASSERT_EQ(::chmod(key_.c_str(), mode), 0);
    ExpectError(StatusCode::kFailedPrecondition,
                {fmt::format("mode {:04o}", mode), "chmod 600 '" + key_ + "'"});
  }
  ASSERT_EQ(::chmod(key_.c_str(), 0400), 0);
  EXPECT_TRUE(Load().ok()) << "less than 0600 is fine";
}

TEST_F(DataKeyFileTest, LinksAreFollowedAndLinksToNowhereAreNamed) {
  const Hash256 made = LoadedKey();
  const std::string real = folder_.File("real.key");
  fs::rename(key_, real);
  fs::create_symlink(real, key_);
  EXPECT_EQ(LoadedKey(), made);
  fs::remove(real);
  fs::remove(wrapped_);
  ExpectError(StatusCode::kFailedPrecondition, {key_, "a link that leads nowhere"});
}

TEST_F(DataKeyFileTest, WhatIsNoFileIsRefusedAndNotWaitedFor) {
  LoadedKey();
  for (const std::string& file : {key_, wrapped_}) {
    const Bytes before = ReadFile(file);
    fs::remove(file);
    ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
    ExpectError(StatusCode::kFailedPrecondition, {file, "no regular file"});
    fs::remove(file);
    fs::create_directory(file);
    ExpectError(StatusCode::kFailedPrecondition, {file, "is a folder"});
    fs::remove(file);
    WriteFile(file, before);
  }
  EXPECT_EQ(DataKey::Load("", wrapped_).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(DataKey::Load(key_ + "/below", wrapped_).status().code(), StatusCode::kFailedPrecondition);
}

// Processes, not threads: what holds them apart is the file system.
TEST_F(DataKeyFileTest, ProcessesThatStartTogetherAgreeOnOneKey) {
  constexpr int kRounds = 10, kProcesses = 8;
  for (int round = 0; round < kRounds; ++round) {
    const std::string key = folder_.File(fmt::format("race{}/key", round));
    const std::string wrapped = folder_.File(fmt::format("race{}/wrapped", round));
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    for (int p = 0; p < kProcesses; ++p) {
      if (::fork() != 0) continue;
      const auto loaded = DataKey::Load(key, wrapped);
      if (!loaded.ok()) ::_exit(1);
      const Hash256 which = (*loaded)->Derive("which key");
      ::_exit(::write(ends[1], which.bytes.data(), 32) == 32 ? 0 : 1);
    }
    int failed = 0;
    for (int p = 0; p < kProcesses; ++p) {
      int status = 0;
      ASSERT_GT(::wait(&status), 0);
      failed += status != 0;
    }
    EXPECT_EQ(failed, 0);
    std::set<Hash256> seen;
    for (int p = 0; p < kProcesses - failed; ++p) {
      Hash256 which;
      ASSERT_EQ(::read(ends[0], which.bytes.data(), 32), 32);
      seen.insert(which);
    }
    EXPECT_EQ(seen.size(), 1u);
    EXPECT_EQ(FilesIn(folder_.File(fmt::format("race{}", round))), 2u);
    ::close(ends[0]);
    ::close(ends[1]);
  }
}

// A crash may come between any two calls: with the key file made and the wrapped key not, and with fresh
// files that never got their name.
TEST_F(DataKeyFileTest, AnInterruptedStartIsTakenUp) {
  fs::create_directories(fs::path(key_).parent_path());
  WriteFile(key_, GoldenFiles()[2].bytes);
  WriteFile(fs::path(key_).parent_path().string() + "/.palimpsest-aaaaaa", Bytes(10));
  const Hash256 made = LoadedKey();
  EXPECT_EQ(ReadFile(key_), GoldenFiles()[2].bytes);
  EXPECT_EQ(LoadedKey(), made);
}

TEST_F(DataKeyFileTest, AStartKilledAtAnyMomentIsTakenUp) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    const std::string key = folder_.File(fmt::format("kill{}/key", round));
    const std::string wrapped = folder_.File(fmt::format("kill{}/wrapped", round));
    const pid_t child = ::fork();
    if (child == 0) ::_exit(DataKey::Load(key, wrapped).ok() ? 0 : 1);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40000));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const auto loaded = DataKey::Load(key, wrapped);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
  }
}

TEST(KeyFormatTest, EveryFlippedBitOfEitherFileIsDetected) {
  const auto check = [](const Bytes& bytes, auto&& parse) {
    ASSERT_TRUE(parse(bytes).ok());
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      Bytes damaged = bytes;
      damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      EXPECT_FALSE(parse(damaged).ok()) << "bit " << bit;
    }
  };
  check(GoldenFiles()[2].bytes, [](const Bytes& b) { return ParseKeyFile(b).status(); });
  check(GoldenFiles()[3].bytes,
        [](const Bytes& b) { return ParseWrappedKey(b, GoldenWrappingKeyBytes()).status(); });
}

TEST(KeyFormatTest, AnotherVersionSaysWhatThisBuildReads) {
  Bytes key_file = GoldenFiles()[2].bytes, wrapped = GoldenFiles()[3].bytes;
  key_file[8] = 2;
  wrapped[8] = 2;
  wrapped.resize(200);
  const auto key = ParseKeyFile(key_file);
  EXPECT_EQ(key.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(key.status()), "is a key file of version 2: this build reads version 1");
  EXPECT_EQ(ParseWrappedKey(wrapped, GoldenWrappingKeyBytes()).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST(KeyFormatTest, BytesOfAnotherKindAreNoKey) {
  const Bytes raw(32, 'x');
  const auto key = ParseKeyFile(raw);
  EXPECT_EQ(key.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Message(key.status()), "is no key file: it begins with other bytes");
  EXPECT_EQ(ParseKeyFile(GoldenFiles()[3].bytes).status().code(), StatusCode::kDataLoss) << "a wrapped key";
}

TEST(KeyFormatTest, VersionOneOpensTheGoldenTile) {
  const std::string golden = std::string(PALIMPSEST_SOURCE_DIR) + "/tests/storage/golden/";
  const auto key = ParseKeyFile(ReadFile(golden + "key_file_v1.bin"));
  ASSERT_TRUE(key.ok()) << key.status();
  const auto data_key = ParseWrappedKey(ReadFile(golden + "wrapped_key_v1.bin"), *key);
  ASSERT_TRUE(data_key.ok()) << data_key.status();
  EXPECT_EQ((*data_key)->number(), kGoldenKeyNumber);
  Bytes plain;
  const auto opened = OpenTile(kGoldenId, kGoldenGeometry, ReadFile(golden + "tile_v1_aes256gcm.bin"),
                               data_key->get(), &plain, Require::kEncrypted);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(plain, GoldenPayload());
}

}  // namespace
}  // namespace palimpsest
