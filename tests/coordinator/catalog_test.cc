#include "coordinator/catalog.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

using Ids = std::vector<int32_t>;

// Bytes that no compression shortens.
std::string RandomText(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

Ids SomeIds(size_t count) {
  Ids ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(i * 7919 % 49152);
  return ids;
}

class CatalogTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }
  void Reopen() {
    catalog_.reset();
    folder_.reset();
    auto folder = DataFolder::Open(path_);
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_ = std::move(*folder);
    auto catalog = Catalog::Open(folder_, clock_);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    catalog_ = std::move(*catalog);
  }
  DocumentId Add(std::string_view text, const Ids& ids = {1, 2, 3}, std::string_view path = "a.txt") {
    const auto added = catalog_->Add(path, text, "tok", ids);
    EXPECT_TRUE(added.ok()) << added.status();
    return added.ok() ? added->info.id : "";
  }

  TemporaryFolder temporary_;
  const std::string path_ = temporary_.path() + "/data";
  ManualClock clock_;
  std::shared_ptr<const DataFolder> folder_;
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogTest, AnAddedDocumentIsFoundAfterReopening) {
  const auto added = catalog_->Add("dir/a.txt", "Some text.", "tok", {5, 6, 7});
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_FALSE(added->already_known);
  EXPECT_EQ(added->info.id, "doc-" + Sha256("Some text.").ToHex().substr(0, 16));
  Reopen();
  const auto document = catalog_->Get(added->info.id, "tok");
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(document->text, "Some text.");
  EXPECT_EQ(document->token_ids, (Ids{5, 6, 7}));
  EXPECT_EQ(document->info.path, "dir/a.txt");
  EXPECT_EQ(document->info.bytes, 10);
  EXPECT_EQ(document->info.tokens, 3);
  EXPECT_EQ(document->info.created_unix_ms, clock_.UnixMillis());
  EXPECT_EQ(document->info.content_hash, Sha256("Some text.").ToHex());
}

TEST_F(CatalogTest, EqualTextIsTheSameDocument) {
  const DocumentId id = Add("Some text.", {1}, "first.txt");
  clock_.Advance(std::chrono::hours(1));
  const auto again = catalog_->Add("second.txt", "Some text.", "other tok", {1, 2});
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->already_known);
  EXPECT_EQ(again->info.id, id);
  EXPECT_EQ(again->info.path, "first.txt");
  EXPECT_EQ(again->info.tokens, 2) << "under the tokenizer it was last added with";
  EXPECT_LT(again->info.created_unix_ms, clock_.UnixMillis());
  EXPECT_EQ(catalog_->List()->size(), 1u);
  EXPECT_EQ(catalog_->FindByContent("Some text.")->value().id, id);
  EXPECT_EQ(*catalog_->FindByContent("Some text"), std::nullopt);
}

TEST_F(CatalogTest, TenantsDoNotSeeEachOthersDocuments) {
  std::shared_ptr<Catalog> a = catalog_->OfTenant("a"), b = catalog_->OfTenant("b");
  const DocumentId common = Add("Some text.");
  const DocumentId of_a = a->Add("a.txt", "Some text.", "tok", {1})->info.id;
  const auto of_b = b->Add("b.txt", "Some text.", "tok", {1});
  ASSERT_TRUE(of_b.ok()) << of_b.status();
  EXPECT_FALSE(of_b->already_known) << "another tenant's copy is not told of";
  EXPECT_NE(of_a, of_b->info.id);
  EXPECT_NE(of_a, common);

  a = b = nullptr;  // each keeps the folder
  Reopen();
  const auto again = catalog_->OfTenant("a");
  EXPECT_EQ(again->Get(of_a, "tok")->text, "Some text.");
  EXPECT_EQ(again->Find(of_a.substr(0, 12))->path, "a.txt");
  EXPECT_EQ(again->List()->size(), 1u);
  for (const DocumentId& other : {common, of_b->info.id}) {
    EXPECT_EQ(again->Get(other, "tok").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(again->Find(other).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(again->Delete(other).code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(again->PutTokenIds(other, "tok", {1}).code(), absl::StatusCode::kNotFound);
  }
  EXPECT_TRUE(again->Delete(of_a).ok());
  EXPECT_EQ(catalog_->OfTenant("b")->List()->size(), 1u);
  EXPECT_EQ(catalog_->List()->size(), 1u);
}

TEST_F(CatalogTest, TenantsNamesThatDifferInTheirEndAreDifferent) {
  const std::string a = "a", a0("a\0", 2);
  const auto first = catalog_->OfTenant(a)->Add("x", "Text.", "tok", {1});
  const auto second = catalog_->OfTenant(a0)->Add("y", "Text.", "tok", {1});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first->info.id, second->info.id);
  EXPECT_EQ(catalog_->OfTenant(std::string(257, 't'))->Add("x", "Text.", "tok", {1}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CatalogTest, TokenIdsAreKeptPerTokenizer) {
  const DocumentId id = Add("Some text.", {1, 2});
  EXPECT_TRUE(catalog_->Get(id, "other")->token_ids.empty());
  ASSERT_TRUE(catalog_->PutTokenIds(id, "other", {9}).ok());
  EXPECT_EQ(catalog_->Get(id, "other")->token_ids, (Ids{9}));
  EXPECT_EQ(catalog_->Get(id, "tok")->token_ids, (Ids{1, 2}));
  ASSERT_TRUE(catalog_->PutTokenIds(id, "other", SomeIds(600000)).ok());
  ASSERT_TRUE(catalog_->PutTokenIds(id, "other", {8, 8}).ok()) << "fewer than before";
  Reopen();
  EXPECT_EQ(catalog_->Get(id, "other")->token_ids, (Ids{8, 8}));
}

TEST_F(CatalogTest, TokenIdsComeWithoutTheirText) {
  const DocumentId id = Add("Some text.", SomeIds(600000));
  const auto tokens = catalog_->GetTokenIds(id.substr(0, 12), "tok");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->info.id, id);
  EXPECT_EQ(tokens->ids, SomeIds(600000));
  EXPECT_TRUE(catalog_->GetTokenIds(id, "other")->ids.empty());
  EXPECT_EQ(catalog_->GetTokenIds("doc-0123456789abcdef", "tok").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog_->OfTenant("ann")->GetTokenIds(id, "tok").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CatalogTest, DocumentsOfManyChunksComeBackWhole) {
  // Around the boundaries of 1 MiB, and more than one write of 4 MiB.
  for (size_t bytes :
       {size_t{1} << 20, (size_t{1} << 20) - 1, (size_t{1} << 20) + 1, (size_t{9} << 20) + 12345}) {
    const std::string text = RandomText(bytes, bytes);
    const DocumentId id = Add(text, SomeIds(bytes / 3));
    const auto document = catalog_->Get(id, "tok");
    ASSERT_TRUE(document.ok()) << document.status();
    EXPECT_TRUE(document->text == text) << bytes;
    EXPECT_TRUE(document->token_ids == SomeIds(bytes / 3)) << bytes;
  }
}

TEST_F(CatalogTest, AnIdMayBeShortenedWhileItIsUnique) {
  const DocumentId id = Add("Some text.");
  for (size_t length = 8; length <= id.size(); ++length) {
    EXPECT_EQ(catalog_->Get(id.substr(0, length), "tok")->info.id, id);
  }
  EXPECT_EQ(catalog_->Get(id.substr(0, 7), "tok").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(catalog_->Get(id + "0", "tok").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog_->Get("doc-XYZ12345", "tok").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog_->Get("", "tok").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(catalog_->Get("doc-0000", "tok").status()), "document 'doc-0000' is not in the catalog");
}

TEST_F(CatalogTest, AnAmbiguousIdNamesWhatItStandsFor) {
  // Two texts whose hashes begin with the same four digits.
  std::map<std::string, std::string> seen;
  for (int i = 0;; ++i) {
    const std::string text = "text " + std::to_string(i), start = Sha256(text).ToHex().substr(0, 4);
    const auto [other, is_new] = seen.emplace(start, text);
    if (is_new) continue;
    const DocumentId one = Add(text), two = Add(other->second);
    const absl::Status status = catalog_->Get("doc-" + start, "tok").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(status).find(one), std::string::npos) << status;
    EXPECT_NE(Message(status).find(two), std::string::npos) << status;
    EXPECT_EQ(catalog_->Get(one, "tok")->text, text);
    return;
  }
}

TEST_F(CatalogTest, AListIsByTimeThenId) {
  std::vector<DocumentId> ids;
  for (int i = 0; i < 5; ++i) {
    ids.push_back(Add("text " + std::to_string(i)));
    clock_.Advance(std::chrono::milliseconds(1));
  }
  const auto list = catalog_->List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ((*list)[i].id, ids[i]);
}

TEST_F(CatalogTest, WhatCannotBeADocumentIsRefused) {
  EXPECT_EQ(Message(catalog_->Add("a.txt", "", "tok", {}).status()), "document 'a.txt' has no text");
  EXPECT_EQ(catalog_->Add("a.txt", "x", "tok", {1, -2}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(catalog_->Add(std::string(20000, 'p'), "x", "tok", {1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  // Above the limit by one byte; pages that are never touched.
  const size_t bytes = (size_t{1} << 30) + 1;
  void* huge = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(huge, MAP_FAILED);
  const absl::Status status =
      catalog_->Add("a.txt", {static_cast<const char*>(huge), bytes}, "tok", {}).status();
  ::munmap(huge, bytes);
  EXPECT_EQ(Message(status), "document 'a.txt' has 1073741825 bytes: at most 1073741824; split it");
  EXPECT_TRUE(catalog_->List()->empty());
}

// True if any file of the catalog holds these bytes.
bool AnyFileHolds(const std::string& folder, const std::string& bytes) {
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder)) {
    if (!file.is_regular_file()) continue;
    std::error_code error;  // it may be gone meanwhile
    std::string content(file.file_size(error), '\0');
    std::ifstream(file.path(), std::ios::binary)
        .read(content.data(), static_cast<std::streamsize>(content.size()));
    if (content.find(bytes) != std::string::npos) return true;
  }
  return false;
}

TEST_F(CatalogTest, ADeletedTextIsNoLongerOnDisk) {
  const std::string secret = RandomText(5 << 20, 1), other = RandomText(100000, 2);
  const DocumentId id = Add(secret, SomeIds(1000)), kept = Add(other);
  // Once in the log, once in a table.
  for (const bool reopen : {false, true}) {
    if (reopen) Add(secret, SomeIds(1000)), Reopen();
    ASSERT_TRUE(AnyFileHolds(path_, secret.substr(4000, 100)));
    ASSERT_TRUE(catalog_->Delete(id).ok());
    EXPECT_FALSE(AnyFileHolds(path_, secret.substr(4000, 100))) << reopen;
    EXPECT_FALSE(AnyFileHolds(path_, secret.substr(secret.size() - 200, 100))) << reopen;
  }
  EXPECT_EQ(catalog_->Get(id, "tok").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog_->Delete(id).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(*catalog_->FindByContent(secret), std::nullopt);
  EXPECT_EQ(catalog_->Get(kept, "tok")->text, other);
  EXPECT_EQ(catalog_->List()->size(), 1u);
}

TEST_F(CatalogTest, ASecondCatalogIsToldWhoHasTheFolder) {
  const auto second = Catalog::Open(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(second.status()).find("is in use by process"), std::string::npos) << second.status();
}

TEST_F(CatalogTest, ReadersAndWritersRunBesideEachOther) {
  std::atomic<bool> done{false};
  std::atomic<int> reads{0}, wrong{0};
  const auto text_of = [](int i) { return RandomText(200000, static_cast<uint64_t>(i)); };
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&] {
      while (!done) {
        for (const DocumentInfo& info : catalog_->List().value_or(std::vector<DocumentInfo>())) {
          const auto document = catalog_->Get(info.id, "tok");
          if (document.ok()) wrong += Sha256(document->text).ToHex() != info.content_hash, ++reads;
          // Deleted meanwhile is fine; half a document is not.
          if (!document.ok()) wrong += document.status().code() != absl::StatusCode::kNotFound;
        }
      }
    });
  }
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 6; ++i) Add(text_of(i), SomeIds(1000));
    for (int i = 0; i < 6; i += 2)
      EXPECT_TRUE(catalog_->Delete(catalog_->FindByContent(text_of(i))->value().id).ok());
  }
  while (reads < 20) std::this_thread::yield();
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(CatalogTest, ADeletedTextIsNoLongerOnDiskThoughReadersAreAtWork) {
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < 6; ++i) Add(texts.emplace_back(RandomText(3 << 20, i)));
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&] {
      while (!done) {
        for (const std::string& text : texts)
          catalog_->Get("doc-" + Sha256(text).ToHex().substr(0, 16), "tok").status().IgnoreError();
      }
    });
  }
  for (const std::string& text : texts) {
    ASSERT_TRUE(catalog_->Delete("doc-" + Sha256(text).ToHex().substr(0, 16)).ok());
    EXPECT_FALSE(AnyFileHolds(path_, text.substr(2000000, 100)));
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

// A small disk of its own for one test, where the machine allows it.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    ::mkdir(path.c_str(), 0700);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, "size=128m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  const std::string path_;
  bool mounted_;
};

// F8 of the fault matrix.
TEST(CatalogDiskTest, AFullDiskIsSaidAndWritingGoesOnWhenThereIsSpace) {
  TemporaryFolder temporary;
  const std::string disk = temporary.path() + "/disk";
  SmallDisk mounted(disk);
  if (!mounted.mounted()) GTEST_SKIP() << "may not mount a tmpfs";
  auto catalog = *Catalog::Open(disk + "/data");
  const auto first = catalog->Add("first.txt", "The first text.", "tok", {1, 2});
  ASSERT_TRUE(first.ok()) << first.status();
  std::ofstream(disk + "/ballast") << std::string(64 << 20, 'x');

  const std::string large = RandomText(60 << 20, 3);
  const absl::Status full = catalog->Add("large.txt", large, "tok", {1}).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_NE(Message(full).find("the disk is full"), std::string::npos) << full;
  EXPECT_EQ(catalog->Get(first->info.id, "tok")->text, "The first text.");
  EXPECT_EQ(*catalog->FindByContent(large), std::nullopt);
  EXPECT_EQ(catalog->List()->size(), 1u);
  EXPECT_EQ(catalog->Add("b.txt", "Small.", "tok", {1}).status().code(),
            absl::StatusCode::kResourceExhausted);

  std::filesystem::remove(disk + "/ballast");
  const std::string text = RandomText(20 << 20, 4);
  const auto second = catalog->Add("second.txt", text, "tok", {3});
  ASSERT_TRUE(second.ok()) << second.status();
  catalog.reset();
  catalog = *Catalog::Open(disk + "/data");
  EXPECT_EQ(catalog->Get(first->info.id, "tok")->text, "The first text.");
  EXPECT_EQ(catalog->Get(second->info.id, "tok")->text, text);
}

}  // namespace
}  // namespace palimpsest
