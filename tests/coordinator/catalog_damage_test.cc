// A catalog whose files were damaged: what is said, what still works, and that no text is removed.
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/catalog.h"
#include "coordinator/catalog_record.h"
#include "proto/base/status.h"
#include "tests/testing/sanitized.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

std::string RandomText(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

void FlipByte(const fs::path& file, uint64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(at));
  const int byte = stream.get();
  stream.seekp(static_cast<std::streamoff>(at));
  stream.put(static_cast<char>(byte ^ 0x10));
}

class CatalogDamageTest : public testing::Test {
 protected:
  void SetUp() override {
    Open();
    for (const std::string& text : {text_, other_text_}) {
      const auto added = catalog_->Add("dir/a.txt", text, "tok", ids_);
      ASSERT_TRUE(added.ok()) << added.status();
    }
    id_ = catalog_->FindByContent(text_)->value().id;
    other_id_ = catalog_->FindByContent(other_text_)->value().id;
    catalog_.reset();
  }
  void Open() {
    auto catalog = Catalog::Open(path_);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    catalog_ = std::move(*catalog);
  }
  // Changes one stored value below the catalog, or removes it, and opens the catalog again.
  void Change(const std::string& key, const std::function<void(std::string&)>& change) {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), path_ + "/catalog", &db).ok());
    std::string value;
    ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), key, &value).ok());
    change(value);
    ASSERT_TRUE((value.empty() ? db->Delete(rocksdb::WriteOptions(), key)
                               : db->Put(rocksdb::WriteOptions(), key, value))
                    .ok());
    delete db;
    Open();
  }
  void ExpectOtherIsIntact() {
    const auto other = catalog_->Get(other_id_, "tok");
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(other->text, other_text_);
  }
  // The error names the document and what to do, and doing it helps.
  void ExpectDamageAndRepair() {
    const absl::Status status = catalog_->Get(id_, "tok").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(Message(status).find("document " + id_ + " is damaged in the catalog"), std::string::npos)
        << status;
    EXPECT_NE(Message(status).find("palimpsest documents delete " + id_), std::string::npos) << status;
    ExpectOtherIsIntact();
    ASSERT_TRUE(catalog_->Add("dir/a.txt", text_, "tok", ids_).ok());
    const auto repaired = catalog_->Get(id_, "tok");
    ASSERT_TRUE(repaired.ok()) << repaired.status();
    EXPECT_EQ(repaired->text, text_);
    EXPECT_EQ(repaired->token_ids, ids_);
  }
  std::vector<fs::path> Files(const std::string& start, const std::string& end) const {
    std::vector<fs::path> files;
    for (const auto& file : fs::directory_iterator(path_ + "/catalog")) {
      const std::string name = file.path().filename().string();
      if (name.starts_with(start) && name.ends_with(end)) files.push_back(file.path());
    }
    return files;
  }
  // Refused with words, and every table that held text is still there.
  void ExpectRefusedAndKept() {
    std::set<fs::path> before;
    for (const fs::path& file : Files("", ".sst")) before.insert(file);
    const absl::Status status = Catalog::Open(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(Message(status).find("is damaged and was left as it is"), std::string::npos) << status;
    EXPECT_NE(Message(status).find("restore the folder from a backup"), std::string::npos) << status;
    std::set<fs::path> after;
    for (const fs::path& file : Files("", ".sst")) after.insert(file);
    EXPECT_EQ(after, before);
  }

  TemporaryFolder temporary_;
  const std::string path_ = temporary_.path() + "/data";
  const std::string text_ = RandomText(3 << 20, 1), other_text_ = RandomText(1 << 20, 2);
  const std::vector<int32_t> ids_ = std::vector<int32_t>(300000, 7);
  const Hash256 content_ = Sha256(text_);
  DocumentId id_, other_id_;
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogDamageTest, AChangedTextIsSaidAndRepaired) {
  Change(TextChunkKey(content_, 1), [](std::string& value) { value[5000] ^= 1; });
  ExpectDamageAndRepair();
}

TEST_F(CatalogDamageTest, AMissingTextChunkIsSaidAndRepaired) {
  Change(TextChunkKey(content_, 2), [](std::string& value) { value.clear(); });
  ExpectDamageAndRepair();
}

TEST_F(CatalogDamageTest, AShortenedTextIsSaidAndRepaired) {
  Change(TextChunkKey(content_, 0), [](std::string& value) { value.resize(value.size() / 2); });
  ExpectDamageAndRepair();
}

// Whole records with right checksums that are not this document's text: the SHA-256 is the last word.
TEST_F(CatalogDamageTest, AnotherTextInItsPlaceIsSaidAndRepaired) {
  const std::string key = TextChunkKey(content_, 0);
  Change(key,
         [&](std::string& value) { value = SealRecord(RecordKind::kText, key, RandomText(1 << 20, 9)); });
  ExpectDamageAndRepair();
}

TEST_F(CatalogDamageTest, ADamagedInfoIsSaidAndRepaired) {
  Change(InfoKey(content_), [](std::string& value) { value.back() ^= 1; });
  const absl::Status list = catalog_->List().status();
  EXPECT_EQ(list.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(Message(list).find(id_), std::string::npos) << list;
  EXPECT_EQ(catalog_->FindByContent(text_).status().code(), absl::StatusCode::kDataLoss);
  ExpectDamageAndRepair();
  EXPECT_EQ(catalog_->List()->size(), 2u);
}

TEST_F(CatalogDamageTest, ADamagedDocumentCanBeDeleted) {
  Change(InfoKey(content_), [](std::string& value) { value.back() ^= 1; });
  ASSERT_TRUE(catalog_->Delete(id_).ok());
  EXPECT_EQ(catalog_->List()->size(), 1u);
  EXPECT_EQ(catalog_->Get(id_, "tok").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CatalogDamageTest, DamagedTokenIdsCountAsNotStored) {
  const Hash256 tokenizer = Sha256("tok");
  for (const std::string& key : {TokensKey(content_, tokenizer), TokenChunkKey(content_, tokenizer, 1)}) {
    Change(key, [](std::string& value) { value.back() ^= 1; });
    const auto document = catalog_->Get(id_, "tok");
    ASSERT_TRUE(document.ok()) << document.status();
    EXPECT_EQ(document->text, text_);
    EXPECT_TRUE(document->token_ids.empty());
    ASSERT_TRUE(catalog_->PutTokenIds(id_, "tok", ids_).ok());
    EXPECT_EQ(catalog_->Get(id_, "tok")->token_ids, ids_);
    catalog_.reset();
  }
}

TEST_F(CatalogDamageTest, ANewerFormatIsRefused) {
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), path_ + "/catalog", &db).ok());
  std::string value = SealRecord(RecordKind::kFormat, FormatKey(), "");
  value[4] = 9;
  ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), FormatKey(), value).ok());
  delete db;
  const absl::Status status = Catalog::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(status).find("version 9"), std::string::npos) << status;
}

// What an interrupted Add leaves goes away at the next start.
TEST_F(CatalogDamageTest, AnUnfinishedDocumentIsRemovedAtOpen) {
  const Hash256 unfinished = Sha256("never finished");
  const std::string key = TextChunkKey(unfinished, 0);
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), path_ + "/catalog", &db).ok());
  ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), key, SealRecord(RecordKind::kText, key, "never")).ok());
  for (const Hash256& content : {unfinished, content_}) {  // the second is being repaired, so it stays
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), UnfinishedKey(content), "").ok());
  }
  delete db;
  Open();
  EXPECT_EQ(catalog_->Get(id_, "tok")->text, text_);
  EXPECT_EQ(catalog_->List()->size(), 2u);
  catalog_.reset();
  ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), path_ + "/catalog", &db).ok());
  std::string value;
  EXPECT_TRUE(db->Get(rocksdb::ReadOptions(), key, &value).IsNotFound());
  EXPECT_TRUE(db->Get(rocksdb::ReadOptions(), UnfinishedKey(unfinished), &value).IsNotFound());
  delete db;
}

// F2 and F10 on files: flips anywhere in the tables give right bytes or DataLoss, never wrong bytes.
TEST_F(CatalogDamageTest, AFlippedByteInATableIsNeverAWrongText) {
  const std::vector<fs::path> tables = Files("", ".sst");
  ASSERT_FALSE(tables.empty());
  std::mt19937_64 random(4);
  int damaged = 0;
  for (int round = 0; round < 60; ++round) {
    const fs::path& table = tables[random() % tables.size()];
    const uint64_t at = random() % fs::file_size(table);
    FlipByte(table, at);
    if (auto catalog = Catalog::Open(path_); catalog.ok()) {
      for (const auto& [id, text] : {std::pair(id_, text_), std::pair(other_id_, other_text_)}) {
        const auto document = (*catalog)->Get(id, "tok");
        if (document.ok()) {
          EXPECT_TRUE(document->text == text) << table << " byte " << at;
          EXPECT_TRUE(document->token_ids.empty() || document->token_ids == ids_);
        } else {
          EXPECT_EQ(document.status().code(), absl::StatusCode::kDataLoss) << document.status();
          EXPECT_NE(Message(document.status()).find(id), std::string::npos) << document.status();
          ++damaged;
        }
      }
    } else {
      EXPECT_EQ(catalog.status().code(), absl::StatusCode::kDataLoss) << catalog.status();
    }
    FlipByte(table, at);
    if (HasFailure()) return;
  }
  EXPECT_GT(damaged, 20);
  Open();
  EXPECT_EQ(catalog_->Get(id_, "tok")->text, text_);
}

TEST_F(CatalogDamageTest, AMissingTableIsRefused) {
  for (const fs::path& table : Files("", ".sst")) {
    fs::rename(table, temporary_.path() + "/away");
    ExpectRefusedAndKept();
    fs::rename(temporary_.path() + "/away", table);
  }
  Open();
  EXPECT_EQ(catalog_->List()->size(), 2u);
}

// RocksDB alone would make a new store here and remove the tables as obsolete.
TEST_F(CatalogDamageTest, AMissingCurrentFileDoesNotMakeANewCatalog) {
  fs::rename(path_ + "/catalog/CURRENT", temporary_.path() + "/away");
  ExpectRefusedAndKept();
  fs::rename(temporary_.path() + "/away", path_ + "/catalog/CURRENT");
  Open();
  EXPECT_EQ(catalog_->Get(id_, "tok")->text, text_);
}

TEST_F(CatalogDamageTest, ADamagedOrMissingManifestIsRefused) {
  const std::vector<fs::path> manifests = Files("MANIFEST-", "");
  ASSERT_EQ(manifests.size(), 1u);
  FlipByte(manifests[0], fs::file_size(manifests[0]) / 2);
  ExpectRefusedAndKept();
  fs::remove(manifests[0]);
  ExpectRefusedAndKept();
}

TEST_F(CatalogDamageTest, AnEmptyCurrentFileIsRefused) {
  std::ofstream(path_ + "/catalog/CURRENT", std::ios::trunc).close();
  ExpectRefusedAndKept();
}

// A process that may open no more files learns that, wherever opening meets the limit; nobody is sent for a
// backup.
TEST_F(CatalogDamageTest, WhatTheSystemRefusesForNowIsNotDamage) {
  if (kSanitized)
    GTEST_SKIP() << "the sanitizer checks a virtual call with a pipe, for which no file is left";
  auto opened = DataFolder::Open(path_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::shared_ptr<const DataFolder> folder = std::move(*opened);
  struct rlimit limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  int refused = 0;
  for (rlim_t files = 3; files < 100; ++files) {
    const struct rlimit few = {.rlim_cur = files, .rlim_max = limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    const absl::Status status = Catalog::Open(folder).status();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (status.ok()) break;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << files << " files: " << status;
    EXPECT_NE(Message(status).find("try again"), std::string::npos) << status;
    ++refused;
  }
  EXPECT_GT(refused, 2);
  folder.reset();
  Open();
  EXPECT_EQ(catalog_->Get(id_, "tok")->text, text_);
  ExpectOtherIsIntact();
}

TEST_F(CatalogDamageTest, ACreationThatWasInterruptedStartsAnew) {
  const std::string path = temporary_.path() + "/fresh";
  ASSERT_TRUE(DataFolder::Open(path).ok());
  fs::create_directory(path + "/catalog.new");
  std::ofstream(path + "/catalog.new/MANIFEST-000001") << "half";
  const auto catalog = Catalog::Open(path);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_TRUE((*catalog)->List()->empty());
  EXPECT_FALSE(fs::exists(path + "/catalog.new"));
}

}  // namespace
}  // namespace palimpsest
