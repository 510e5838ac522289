// Files that the reader must refuse, each with a message that says what is wrong where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/temporary_folder.h"
#include "text/gguf.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;
using OpenedFile = absl::StatusOr<std::shared_ptr<const GgufFile>>;

OpenedFile Parse(const Bytes& bytes) { return GgufFile::Parse(bytes, "m.gguf"); }

// The message with which the reader refuses the file; empty (a failure) if it accepts it. Also checks what
// every message must have: the file's name in front, and one line.
std::string Refusal(const Bytes& bytes) {
  const OpenedFile file = Parse(bytes);
  EXPECT_FALSE(file.ok()) << "the file was accepted";
  if (file.ok()) return "";
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message = Message(file.status());
  EXPECT_EQ(message.rfind("m.gguf: ", 0), 0u) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}
std::string Refusal(const GgufWriter& writer) { return Refusal(writer.Bytes()); }

// ---- files that are none

TEST(GgufBadFile, EmptyFileIsAnError) {
  EXPECT_THAT(Refusal(Bytes{}), HasSubstr("empty; expected a .gguf model"));
}

TEST(GgufBadFile, AnotherFormatIsAnErrorThatShowsItsStart) {
  EXPECT_THAT(Refusal(Bytes{'P', 'K', 3, 4, 0, 0}), HasSubstr("not a GGUF file: starts with 'PK\\x03\\x04'"));
  EXPECT_THAT(Refusal(Bytes{'G', 'G'}), HasSubstr("not a GGUF file: starts with 'GG'"));
  EXPECT_THAT(Refusal(Bytes{'\n'}), HasSubstr("starts with '\\x0a'"));
}

TEST(GgufBadFile, OtherVersionsAreAnError) {
  GgufWriter writer = SampleGguf();
  writer.SetVersion(1);
  EXPECT_THAT(Refusal(writer),
              HasSubstr("GGUF version 1; versions 2 and 3 are read, convert the model again"));
  writer.SetVersion(4);
  EXPECT_THAT(Refusal(writer), HasSubstr("update Palimpsest"));
  writer.SetVersion(0);
  EXPECT_THAT(Refusal(writer), HasSubstr("GGUF version 0"));
}

TEST(GgufBadFile, BigEndianFileIsAnError) {
  GgufWriter writer = SampleGguf();
  writer.SetVersion(0x03000000);
  EXPECT_THAT(Refusal(writer), HasSubstr("big-endian GGUF file (version 3); convert it to little endian"));
}

TEST(GgufBadFile, AFileCutAtAnyByteIsAnError) {
  const Bytes bytes = SampleGguf().Bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A copy of its own, so that the sanitizer sees a read past the cut.
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(Refusal(cut).empty()) << "cut at byte " << size;
  }
}

TEST(GgufBadFile, AnyByteChangedIsReadOrRefused) {
  const Bytes bytes = SampleGguf().Bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      Bytes changed = bytes;
      changed[i] = static_cast<uint8_t>(changed[i] ^ flip);
      const OpenedFile file = Parse(changed);
      if (file.ok()) (void)(*file)->GetStrings("a.string");
    }
  }
}

TEST(GgufBadFile, MissingFileIsNotFound) {
  const OpenedFile file = GgufFile::Open("/nonexistent/model.gguf");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(file.status()), HasSubstr("/nonexistent/model.gguf: no such file"));
}

TEST(GgufBadFile, FoldersAndPipesAreAnError) {
  const TemporaryFolder folder;
  EXPECT_THAT(Message(GgufFile::Open(folder.File("")).status()), HasSubstr("not a regular file"));
  const std::string pipe = folder.File("pipe.gguf");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(Message(GgufFile::Open(pipe).status()), HasSubstr("not a regular file"));
}

TEST(GgufBadFile, AnEmptyFileOnDiskIsAnError) {
  const TemporaryFolder folder;
  const std::string path = folder.File("empty.gguf");
  std::ofstream(path).close();
  EXPECT_THAT(Message(GgufFile::Open(path).status()), HasSubstr("empty.gguf: the file is empty"));
}

// ---- counts and lengths

TEST(GgufBadCount, MoreKeysThanWrittenIsAnError) {
  GgufWriter writer;
  writer.Add("key", uint32_t{1});
  writer.SetMetadataCount(2);
  EXPECT_THAT(Refusal(writer), HasSubstr("promises 2 metadata keys"));
}

TEST(GgufBadCount, HugeCountsAreRefusedBeforeAnythingIsAllocated) {
  for (const uint64_t count : {uint64_t{65'537}, uint64_t{1} << 32, uint64_t{1} << 60, ~uint64_t{0}}) {
    GgufWriter keys = SampleGguf();
    keys.SetMetadataCount(count);
    EXPECT_THAT(Refusal(keys), HasSubstr(fmt::format("promises {} metadata keys", count)));
    GgufWriter tensors = SampleGguf();
    tensors.SetTensorCount(count);
    EXPECT_THAT(Refusal(tensors), HasSubstr(fmt::format("promises {} tensors", count)));
    GgufWriter array;
    array.AddRawArray("list", GgufValueType::kUint64, count, "12345678");
    EXPECT_THAT(Refusal(array), HasSubstr(fmt::format("'list' has {} elements", count)));
  }
}

TEST(GgufBadCount, AStringArrayLongerThanTheFileIsAnError) {
  GgufWriter writer;
  writer.AddRawArray("list", GgufValueType::kString, 3, std::string(16, '\0'));  // two empty strings
  EXPECT_THAT(Refusal(writer), HasSubstr("'list' has 3 elements of at least 8 bytes, but 16 bytes are left"));
}

TEST(GgufBadCount, AVocabularyPastItsLimitIsAnError) {
  GgufWriter writer;
  writer.AddRawArray("tokenizer.ggml.tokens", GgufValueType::kString, (1 << 20) + 1, "");
  EXPECT_THAT(Refusal(writer), HasSubstr("has 1048577 elements, at most 1048576 are allowed"));
}

TEST(GgufBadCount, StringsPastTheirLimitAreAnError) {
  GgufWriter value;
  value.Add("text", std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(Refusal(value), HasSubstr("string of 'text'"));
  EXPECT_THAT(Refusal(value), HasSubstr("1048577 bytes long, at most 1048576"));
  GgufWriter key;
  key.Add(std::string(65'537, 'k'), uint8_t{1});
  EXPECT_THAT(Refusal(key), HasSubstr("metadata key before byte"));
  GgufWriter element;
  element.AddArray<std::string>("list", {"", std::string((1 << 20) + 1, 'x')});
  EXPECT_THAT(Refusal(element), HasSubstr("string array of 'list'"));
  GgufWriter tensor;
  tensor.AddF32(std::string(257, 't'), {1}, std::vector<float>{0});
  EXPECT_THAT(Refusal(tensor), HasSubstr("tensor name before byte"));
}

TEST(GgufBadCount, AStringLengthThatWrapsIsAnError) {
  for (const uint64_t size : {~uint64_t{0}, ~uint64_t{0} - 7, uint64_t{1} << 63}) {
    std::string payload;
    GgufWriter::Append(payload, size);
    GgufWriter writer;
    writer.AddRaw("text", GgufValueType::kString, payload + "tail");
    EXPECT_THAT(Refusal(writer), HasSubstr(fmt::format("is {} bytes long", size)));
  }
}

// ---- metadata

TEST(GgufBadMetadata, DuplicateAndEmptyKeysAreAnError) {
  GgufWriter twice;
  twice.Add("key", uint32_t{1});
  twice.Add("key", uint32_t{2});
  EXPECT_THAT(Refusal(twice), HasSubstr("metadata key 'key' appears twice"));
  GgufWriter empty;
  empty.Add("", uint64_t{1});
  EXPECT_THAT(Refusal(empty), HasSubstr("metadata key 0 of 1 is empty"));
}

TEST(GgufBadMetadata, UnknownTypesAreAnError) {
  GgufWriter scalar;
  scalar.AddRaw("key", static_cast<GgufValueType>(13), "12345678");
  EXPECT_THAT(Refusal(scalar), HasSubstr("'key' has value type 13"));
  GgufWriter array;
  array.AddRawArray("key", static_cast<GgufValueType>(77), 1, "12345678");
  EXPECT_THAT(Refusal(array), HasSubstr("'key' has elements of type 77"));
}

TEST(GgufBadMetadata, ArraysOfArraysAreAnError) {
  GgufWriter writer;
  writer.AddRawArray("nest", GgufValueType::kArray, 1, std::string(12, '\0'));
  EXPECT_THAT(Refusal(writer), HasSubstr("'nest' has elements of array"));
}

TEST(GgufBadMetadata, BoolsOtherThanZeroAndOneAreAnError) {
  GgufWriter scalar;
  scalar.AddRaw("flag", GgufValueType::kBool, "\x02");
  EXPECT_THAT(Refusal(scalar), HasSubstr("bool 0 of key 'flag' is 2"));
  GgufWriter array;
  array.AddRawArray("flags", GgufValueType::kBool, 3, std::string("\0\x01\x07", 3));
  EXPECT_THAT(Refusal(array), HasSubstr("bool 2 of key 'flags' is 7"));
}

TEST(GgufBadMetadata, KeysAreShownFitForOneLine) {
  GgufWriter writer;
  writer.Add("a\n\x1b[31m", uint32_t{1});
  writer.Add("a\n\x1b[31m", uint32_t{1});
  EXPECT_THAT(Refusal(writer), HasSubstr("'a\\x0a\\x1b[31m' appears twice"));
}

TEST(GgufBadMetadata, AlignmentMustBeAPowerOfTwoUpTo64KiB) {
  for (const uint32_t alignment : {0u, 4u, 24u, 33u, 131'072u, 0xffffffffu}) {
    GgufWriter writer;
    writer.Add("general.alignment", alignment);
    EXPECT_THAT(Refusal(writer), HasSubstr(fmt::format("general.alignment is {};", alignment)));
  }
  GgufWriter text;
  text.Add("general.alignment", "32");
  EXPECT_THAT(Refusal(text), HasSubstr("'general.alignment' is string, expected an integer"));
  GgufWriter negative;
  negative.Add("general.alignment", int32_t{-32});
  EXPECT_THAT(Refusal(negative), HasSubstr("general.alignment is -32;"));
}

// ---- tensors

GgufWriter OneTensor(std::vector<uint64_t> shape, uint32_t type, size_t bytes) {
  GgufWriter writer;
  writer.AddTensor("w", std::move(shape), type, Bytes(bytes, 0));
  return writer;
}

TEST(GgufBadTensor, ZeroDimensionsAreAnError) {
  EXPECT_THAT(Refusal(OneTensor({0}, 0, 64)), HasSubstr("dimension 0 of tensor 'w' is 0"));
  EXPECT_THAT(Refusal(OneTensor({4, 0, 4}, 0, 64)), HasSubstr("dimension 1 of tensor 'w' is 0"));
}

TEST(GgufBadTensor, NoneOrTooManyDimensionsAreAnError) {
  EXPECT_THAT(Refusal(OneTensor({}, 0, 64)), HasSubstr("tensor 'w' has 0 dimensions"));
  EXPECT_THAT(Refusal(OneTensor({1, 1, 1, 1, 1}, 0, 64)), HasSubstr("tensor 'w' has 5 dimensions"));
}

TEST(GgufBadTensor, DimensionsThatOverflowAreAnError) {
  constexpr uint64_t kMax = uint64_t{1} << 31;
  EXPECT_THAT(Refusal(OneTensor({kMax + 1}, 0, 64)), HasSubstr("is 2147483649; expected 1 to 2147483648"));
  EXPECT_THAT(Refusal(OneTensor({~uint64_t{0}}, 0, 64)), HasSubstr("is 18446744073709551615"));
  EXPECT_THAT(Refusal(OneTensor({kMax, kMax, kMax}, 0, 64)), HasSubstr("more than 2^63 elements"));
  // 2^62 elements fit, their 2^64 bytes do not.
  EXPECT_THAT(Refusal(OneTensor({kMax, kMax}, 0, 64)), HasSubstr("passes the file's"));
  EXPECT_THAT(Refusal(OneTensor({kMax, kMax}, 28, 64)), HasSubstr("passes the file's"));
}

TEST(GgufBadTensor, DuplicateAndEmptyNamesAreAnError) {
  GgufWriter twice = OneTensor({1}, 0, 4);
  twice.AddF32("w", {1}, std::vector<float>{1});
  EXPECT_THAT(Refusal(twice), HasSubstr("tensor 'w' appears twice"));
  GgufWriter empty;
  empty.AddF32("", {1}, std::vector<float>{1});
  EXPECT_THAT(Refusal(empty), HasSubstr("tensor 0 of 1 has no name"));
}

TEST(GgufBadTensor, RowsThatAreNoWholeBlocksAreAnError) {
  EXPECT_THAT(Refusal(OneTensor({33}, 8, 68)),
              HasSubstr("rows of tensor 'w' have 33 numbers, no multiple of Q8_0's"));
  EXPECT_THAT(Refusal(OneTensor({128, 2}, 12, 144)), HasSubstr("Q4_K's block of 256"));
}

TEST(GgufBadTensor, DataPastTheEndAreAnError) {
  EXPECT_THAT(Refusal(OneTensor({8}, 0, 31)), HasSubstr("tensor 'w' (F32 [8]) at offset 0"));
  EXPECT_TRUE(Parse(OneTensor({8}, 0, 32).Bytes()).ok());
}

TEST(GgufBadTensor, OffsetsPastTheEndOrOverflowingAreAnError) {
  for (const uint32_t type : {0u, 99u}) {
    for (const uint64_t offset : {uint64_t{64}, uint64_t{1} << 40, uint64_t{1} << 63, ~uint64_t{31}}) {
      GgufWriter writer = OneTensor({8}, type, 32);
      writer.SetTensorOffset("w", offset);
      EXPECT_THAT(Refusal(writer), HasSubstr("passes the file's"));
    }
  }
}

TEST(GgufBadTensor, UnalignedOffsetsAreAnError) {
  GgufWriter writer = OneTensor({8}, 0, 64);
  writer.SetTensorOffset("w", 4);
  EXPECT_THAT(Refusal(writer), HasSubstr("tensor 'w' begins at offset 4, no multiple of the alignment 32"));
}

TEST(GgufBadTensor, OverlappingTensorsAreAnError) {
  for (const uint32_t type : {0u, 99u}) {
    GgufWriter writer;
    writer.AddTensor("a", {16}, type, Bytes(64, 0));
    writer.AddTensor("b", {16}, 0, Bytes(64, 0));
    writer.SetTensorOffset("b", type == 0 ? 32 : 0);
    EXPECT_THAT(Refusal(writer), HasSubstr("before tensor 'a' ends at"));
  }
}

TEST(GgufBadTensor, UnsortedTensorsAreAnError) {
  GgufWriter writer;
  writer.AddTensor("a", {8}, 0, Bytes(32, 0));
  writer.AddTensor("b", {8}, 0, Bytes(32, 0));
  writer.SetTensorOffset("a", 32);
  writer.SetTensorOffset("b", 0);
  EXPECT_THAT(Refusal(writer), HasSubstr("tensor 'b' begins at offset 0, before tensor 'a' ends at 64"));
}

}  // namespace
}  // namespace palimpsest
