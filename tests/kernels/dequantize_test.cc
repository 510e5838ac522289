// The definition is the `gguf` Python package: tests/testing/dequantize_oracle.py writes random blocks and
// their numbers, some of which are checked in.
#include "kernels/dequantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "proto/base/status.h"
#include "text/gguf_format.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

struct Record {
  uint32_t type, block_elements, block_bytes, blocks;
  std::vector<uint8_t> bytes;  // (blocks, block_bytes)
  std::vector<float> numbers;  // (blocks, block_elements)
};

std::vector<Record> ReadRecords(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<Record> records;
  uint32_t header[4];
  while (file.read(reinterpret_cast<char*>(header), sizeof header)) {
    Record record{header[0], header[1], header[2], header[3], {}, {}};
    record.bytes.resize(size_t{record.blocks} * record.block_bytes);
    record.numbers.resize(size_t{record.blocks} * record.block_elements);
    file.read(reinterpret_cast<char*>(record.bytes.data()),
              static_cast<std::streamsize>(record.bytes.size()));
    file.read(reinterpret_cast<char*>(record.numbers.data()),
              static_cast<std::streamsize>(record.numbers.size() * 4));
    EXPECT_TRUE(file) << path << " ends inside a record";
    records.push_back(std::move(record));
  }
  return records;
}

// Bit for bit: -0 is not 0.
void ExpectExpandsAsRecorded(const Record& record) {
  SCOPED_TRACE(TensorTypeName(record.type));
  const auto format = QuantFormatOf(record.type);
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->block_elements, record.block_elements);
  EXPECT_EQ(format->block_bytes, record.block_bytes);
  std::vector<float> numbers(record.numbers.size(), std::numeric_limits<float>::quiet_NaN());
  ASSERT_TRUE(Dequantize(record.type, record.bytes, numbers).ok());
  size_t wrong = 0, first = 0;
  for (size_t i = numbers.size(); i-- > 0;) {
    if (std::bit_cast<uint32_t>(numbers[i]) == std::bit_cast<uint32_t>(record.numbers[i])) continue;
    ++wrong;
    first = i;
  }
  EXPECT_EQ(wrong, 0u) << "first: number " << first << " is " << numbers[first] << ", expected "
                       << record.numbers[first];
}

void ExpectEveryTypeExpandsAsRecorded(const std::string& path) {
  std::set<uint32_t> types;
  for (const Record& record : ReadRecords(path)) {
    ExpectExpandsAsRecorded(record);
    types.insert(record.type);
  }
  EXPECT_EQ(types, (std::set<uint32_t>{0, 1, 2, 3, 6, 7, 8, 12, 14, 30}));
}

TEST(Dequantize, EveryTypeGivesTheBitsOfTheGolden) {
  ExpectEveryTypeExpandsAsRecorded(PALIMPSEST_SOURCE_DIR "/tests/golden/dequantize.bin");
}

TEST(Dequantize, EveryTypeGivesTheBitsOfThePythonPackage) {
  const char* python = std::getenv("PALIMPSEST_TEST_PYTHON");
  if (python == nullptr)
    GTEST_SKIP() << "PALIMPSEST_TEST_PYTHON is unset: set it to a python that has gguf and numpy";
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("dequantize.{}", getpid())).string();
  const std::string command = fmt::format("'{}' '{}' '{}' 2000", python,
                                          PALIMPSEST_SOURCE_DIR "/tests/testing/dequantize_oracle.py", path);
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  ExpectEveryTypeExpandsAsRecorded(path);
  std::filesystem::remove(path);
}

TEST(Dequantize, HalvesThatAreInfiniteOrNoNumberStaySo) {
  const uint16_t halves[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01};
  std::vector<float> numbers(4);
  ASSERT_TRUE(Dequantize(1, {reinterpret_cast<const uint8_t*>(halves), sizeof halves}, numbers).ok());
  EXPECT_EQ(numbers[0], std::numeric_limits<float>::infinity());
  EXPECT_EQ(numbers[1], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(numbers[2]));
  EXPECT_TRUE(std::isnan(numbers[3]));
}

TEST(Dequantize, BytesNeedNoAlignment) {
  for (const Record& record : ReadRecords(PALIMPSEST_SOURCE_DIR "/tests/golden/dequantize.bin")) {
    std::vector<uint8_t> shifted(record.bytes.size() + 1);
    std::memcpy(shifted.data() + 1, record.bytes.data(), record.bytes.size());
    std::vector<float> numbers(record.numbers.size());
    ASSERT_TRUE(Dequantize(record.type, std::span(shifted).subspan(1), numbers).ok());
    EXPECT_EQ(std::memcmp(numbers.data(), record.numbers.data(), numbers.size() * sizeof(float)), 0);
  }
}

TEST(Dequantize, FewerNumbersThanBytesHoldAreTheFirst) {
  const std::vector<uint8_t> two_blocks(2 * 34, 1);
  std::vector<float> one(32);
  EXPECT_TRUE(Dequantize(8, two_blocks, one).ok());
  EXPECT_TRUE(Dequantize(8, two_blocks, {}).ok());
}

TEST(Dequantize, SizesThatDisagreeAreAnErrorAndTouchNothing) {
  const std::vector<uint8_t> bytes(34, 1);
  std::vector<float> part(33, 5.0f), many(64, 5.0f);
  const absl::Status uneven = Dequantize(8, bytes, part);
  EXPECT_EQ(uneven.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(uneven), HasSubstr("33 numbers of Q8_0 are no multiple of its block of 32"));
  const absl::Status few = Dequantize(8, bytes, many);
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(few),
              HasSubstr("64 numbers of Q8_0 are 2 blocks of 34 bytes, but only 34 bytes are given"));
  EXPECT_EQ(part, std::vector<float>(33, 5.0f));
  EXPECT_EQ(many, std::vector<float>(64, 5.0f));
}

TEST(Dequantize, OtherTypesAreUnimplementedByName) {
  for (const uint32_t type : {13u, 99u, 0xffffffffu}) {
    const auto format = QuantFormatOf(type);
    EXPECT_EQ(format.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(Message(format.status()), HasSubstr(TensorTypeName(type)));
    EXPECT_THAT(Message(format.status()), HasSubstr("use a model in F32"));
    std::vector<float> numbers(256);
    EXPECT_EQ(Dequantize(type, {}, numbers).code(), absl::StatusCode::kUnimplemented);
  }
}

}  // namespace
}  // namespace palimpsest
