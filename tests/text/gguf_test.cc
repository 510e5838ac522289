#include "text/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/ids.h"
#include "proto/base/status.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;
using OpenedFile = absl::StatusOr<std::shared_ptr<const GgufFile>>;

OpenedFile Parse(const Bytes& bytes) { return GgufFile::Parse(bytes, "m.gguf"); }

template <typename T>
std::string WrongType(const absl::StatusOr<T>& value) {
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument);
  return Message(value.status());
}

// ---- what a good file gives

TEST(Gguf, ReadsScalarsOfEveryType) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  EXPECT_EQ(*file->GetInt("s.u8"), 200);
  EXPECT_EQ(*file->GetInt("s.i8"), -100);
  EXPECT_EQ(*file->GetInt("s.u16"), 60'000);
  EXPECT_EQ(*file->GetInt("s.i16"), -30'000);
  EXPECT_EQ(*file->GetInt("s.u32"), 4'000'000'000);
  EXPECT_EQ(*file->GetInt("s.i32"), -2'000'000'000);
  EXPECT_EQ(*file->GetInt("s.u64"), int64_t{1} << 40);
  EXPECT_EQ(*file->GetInt("s.i64"), -(int64_t{1} << 40));
  EXPECT_EQ(*file->GetFloat("s.f32"), 0.5);
  EXPECT_EQ(*file->GetFloat("s.f64"), 0.25);
  EXPECT_TRUE(*file->GetBool("s.bool"));
  EXPECT_EQ(*file->GetString("s.string"), "text");
}

TEST(Gguf, ReadsArraysOfEveryType) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  EXPECT_THAT(*file->GetInts("a.u8"), ElementsAre(1, 255));
  EXPECT_THAT(*file->GetInts("a.i8"), ElementsAre(-1, 1));
  EXPECT_THAT(*file->GetInts("a.u16"), ElementsAre(1, 65'535));
  EXPECT_THAT(*file->GetInts("a.i16"), ElementsAre(-1, 1));
  EXPECT_THAT(*file->GetInts("a.u32"), ElementsAre(1, 4'294'967'295));
  EXPECT_THAT(*file->GetInts("a.i32"), ElementsAre(-1, 1));
  EXPECT_THAT(*file->GetInts("a.u64"), ElementsAre(1, int64_t{1} << 62));
  EXPECT_THAT(*file->GetInts("a.i64"), ElementsAre(-1, 1));
  EXPECT_THAT(*file->GetFloats("a.f32"), ElementsAre(0.5f, -2.0f));
  EXPECT_THAT(*file->GetStrings("a.string"), ElementsAre("", "one", "two"));
  EXPECT_THAT(*file->GetInts("a.empty"), ElementsAre());
}

TEST(Gguf, TensorsShowTheirShapeTypeAndBytes) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  ASSERT_EQ(file->tensors().size(), 5u);
  const GgufTensor& matrix = **file->Tensor("matrix");
  EXPECT_THAT(matrix.shape, ElementsAre(4, 2));
  EXPECT_EQ(matrix.elements(), 8);
  EXPECT_EQ(matrix.type, static_cast<uint32_t>(TensorType::kF32));
  ASSERT_EQ(matrix.bytes.size(), 32u);
  EXPECT_EQ((matrix.bytes.data() - bytes.data()) % 32, 0);
  float last;
  std::memcpy(&last, matrix.bytes.data() + 28, sizeof last);
  EXPECT_EQ(last, 7.0f);
  EXPECT_EQ((*file->Tensor("blocks"))->bytes.size(), 2 * 34u);
  EXPECT_EQ((*file->Tensor("halves"))->bytes.size(), 16u);
  EXPECT_EQ((*file->Tensor("vector"))->bytes.size(), 12u);
}

TEST(Gguf, UnknownTensorTypesAreListedWithoutBytes) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  const GgufTensor& unknown = **file->Tensor("unknown");
  EXPECT_EQ(unknown.type, 99u);
  EXPECT_TRUE(unknown.bytes.empty());
  EXPECT_EQ(TensorTypeName(99), "type 99");
  EXPECT_EQ(TensorTypeName(3), "Q4_1");
}

TEST(Gguf, VersionTwoReadsAsVersionThree) {
  GgufWriter writer = SampleGguf();
  writer.SetVersion(2);
  const Bytes bytes = writer.Bytes();
  const OpenedFile file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->GetString("s.string"), "text");
}

TEST(Gguf, AVocabularyWithoutTensorsIsAFile) {
  GgufWriter writer;
  writer.AddArray<std::string>("tokenizer.ggml.tokens", {"a", "b"});
  const Bytes bytes = writer.Bytes();  // ends unpadded, before where data would begin
  const OpenedFile file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->tensors().empty());
}

TEST(Gguf, AlignmentOfTheFileIsHonoured) {
  for (const uint32_t alignment : {8u, 64u, 4096u, 65'536u}) {
    GgufWriter writer;
    writer.SetAlignment(alignment);
    writer.AddF32("a", {1}, std::vector<float>{1});
    writer.AddF32("b", {1}, std::vector<float>{2});
    const Bytes bytes = writer.Bytes();
    const OpenedFile file = Parse(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    const uint8_t* b = (*(*file)->Tensor("b"))->bytes.data();
    EXPECT_EQ((b - bytes.data()) % alignment, 0u);
    float value;
    std::memcpy(&value, b, sizeof value);
    EXPECT_EQ(value, 2.0f);
  }
}

TEST(Gguf, OpenMapsAFileFromDisk) {
  const TemporaryFolder folder;
  const std::string path = folder.File("sample.gguf");
  ASSERT_TRUE(SampleGguf().Write(path).ok());
  const OpenedFile file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  EXPECT_EQ((*(*file)->Tensor("matrix"))->bytes.size(), 32u);
  std::filesystem::remove(path);  // the mapping outlives the name
  EXPECT_EQ(*(*file)->GetString("s.string"), "text");
}

TEST(Gguf, ReleasedPagesAreReadAgain) {
  const TemporaryFolder folder;
  const std::string path = folder.File("model.gguf");
  ASSERT_TRUE(SampleGguf().Write(path).ok());
  const auto file = *GgufFile::Open(path);
  const std::string before = *file->ContentHash();
  file->ReleasePages();
  float last;
  std::memcpy(&last, (*file->Tensor("matrix"))->bytes.data() + 28, sizeof last);
  EXPECT_EQ(last, 7.0f);
  EXPECT_EQ(*file->GetString("s.string"), "text");
  EXPECT_EQ(*(*GgufFile::Open(path))->ContentHash(), before);
}

TEST(Gguf, ContentHashIsTheSha256OfTheFile) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  const std::string expected = Sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}).ToHex();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(*file->ContentHash(), expected); });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---- typed getters

TEST(Gguf, AnAbsentKeyIsNotFound) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  EXPECT_FALSE(file->Has("absent"));
  EXPECT_TRUE(file->Has("s.u8"));
  const auto value = file->GetInt("absent");
  EXPECT_EQ(value.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(value.status()), HasSubstr("m.gguf: no metadata key 'absent'"));
  EXPECT_EQ(file->GetStrings("absent").status().code(), absl::StatusCode::kNotFound);
}

TEST(Gguf, MetadataOfAnotherTypeIsAnError) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  EXPECT_THAT(WrongType(file->GetInt("s.string")), HasSubstr("'s.string' is string, expected an integer"));
  EXPECT_THAT(WrongType(file->GetInt("s.bool")), HasSubstr("is bool"));
  EXPECT_THAT(WrongType(file->GetInt("s.f32")), HasSubstr("is f32"));
  EXPECT_THAT(WrongType(file->GetInt("a.u32")), HasSubstr("is array of 2 u32"));
  EXPECT_THAT(WrongType(file->GetFloat("s.i32")), HasSubstr("is i32, expected f32 or f64"));
  EXPECT_THAT(WrongType(file->GetBool("s.u8")), HasSubstr("is u8, expected bool"));
  EXPECT_THAT(WrongType(file->GetString("s.u8")), HasSubstr("expected string"));
  EXPECT_THAT(WrongType(file->GetString("a.string")), HasSubstr("is array of 3 string"));
}

TEST(Gguf, ArraysOfAnotherElementTypeAreAnError) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  EXPECT_THAT(WrongType(file->GetStrings("a.u8")), HasSubstr("is array of 2 u8, expected array of string"));
  EXPECT_THAT(WrongType(file->GetStrings("s.string")), HasSubstr("is string, expected array of string"));
  EXPECT_THAT(WrongType(file->GetInts("a.f32")), HasSubstr("expected array of integers"));
  EXPECT_THAT(WrongType(file->GetInts("a.bool")), HasSubstr("expected array of integers"));
  EXPECT_THAT(WrongType(file->GetInts("a.string")), HasSubstr("expected array of integers"));
  EXPECT_THAT(WrongType(file->GetFloats("a.i32")), HasSubstr("expected array of f32"));
  EXPECT_THAT(WrongType(file->GetFloats("a.f64")), HasSubstr("expected array of f32"));
}

TEST(Gguf, IntegersAboveInt64AreAnError) {
  GgufWriter writer;
  writer.Add("big", uint64_t{1} << 63);
  writer.AddArray<uint64_t>("bigs", {1, uint64_t{1} << 63});
  const Bytes bytes = writer.Bytes();
  const auto file = *Parse(bytes);
  EXPECT_THAT(WrongType(file->GetInt("big")), HasSubstr("9223372036854775808"));
  EXPECT_THAT(WrongType(file->GetInts("bigs")), HasSubstr("more than an int64"));
}

TEST(Gguf, AMissingTensorIsNotFound) {
  const Bytes bytes = SampleGguf().Bytes();
  const auto file = *Parse(bytes);
  const auto tensor = file->Tensor("output.weight");
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(tensor.status()), HasSubstr("m.gguf: no tensor 'output.weight' among 5"));
}

TEST(Gguf, AMissingTensorOfASplitModelSaysSo) {
  GgufWriter writer = SampleGguf();
  writer.Add("split.count", uint16_t{3});
  const Bytes bytes = writer.Bytes();
  EXPECT_THAT(Message((*Parse(bytes))->Tensor("x").status()), HasSubstr("one of 3 parts"));
}

// ---- files in the tree and on the machine

TEST(GgufSeeds, EverySeedOfTheFuzzerIsReadOrRefused) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(PALIMPSEST_SOURCE_DIR "/tests/fuzz/seeds/gguf")) {
    const OpenedFile file = GgufFile::Open(entry.path().string());
    EXPECT_TRUE(!file.ok() || (*file)->ContentHash().ok());
    ++files;
  }
  EXPECT_GE(files, 5);
}

TEST(GgufModel, ARealModelReads) {
  const char* path = std::getenv("PALIMPSEST_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "PALIMPSEST_TEST_MODEL is unset: set it to the path of a .gguf model";
  const OpenedFile file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->GetString("general.architecture").ok());
  EXPECT_GT((*file)->GetStrings("tokenizer.ggml.tokens")->size(), 0u);
  EXPECT_TRUE((*file)->Tensor("token_embd.weight").ok());
  EXPECT_EQ((*file)->ContentHash()->size(), 64u);
}

}  // namespace
}  // namespace palimpsest
