#include "tests/testing/gguf_writer.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

uint64_t PadTo(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

}  // namespace

void GgufWriter::AppendString(std::string& out, std::string_view text) {
  Append(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

void GgufWriter::Add(std::string_view key, std::string_view value) {
  std::string payload;
  AppendString(payload, value);
  AddRaw(key, GgufValueType::kString, payload);
}

void GgufWriter::AddRaw(std::string_view key, GgufValueType type, std::string_view payload) {
  AppendString(metadata_, key);
  Append(metadata_, static_cast<uint32_t>(type));
  metadata_.append(payload);
  ++pairs_;
}

void GgufWriter::AddRawArray(std::string_view key, GgufValueType element, uint64_t count,
                             std::string_view payload) {
  std::string array;
  Append(array, static_cast<uint32_t>(element));
  Append(array, count);
  array.append(payload);
  AddRaw(key, GgufValueType::kArray, array);
}

void GgufWriter::SetAlignment(uint32_t bytes) {
  alignment_ = bytes;
  Add("general.alignment", bytes);
}

void GgufWriter::AddTensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type,
                           std::span<const uint8_t> bytes) {
  uint64_t offset = 0;
  if (!tensors_.empty()) offset = PadTo(tensors_.back().offset + tensors_.back().bytes.size(), alignment_);
  tensors_.push_back(
      {std::string(name), std::move(shape), type, std::string(bytes.begin(), bytes.end()), offset});
}

void GgufWriter::AddF32(std::string_view name, std::vector<uint64_t> shape, std::span<const float> values) {
  AddTensor(name, std::move(shape), TensorType::kF32,
            {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
}

void GgufWriter::SetTensorOffset(std::string_view name, uint64_t offset) {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
  PALIMPSEST_CHECK(found != tensors_.end(), "no tensor {}", name);
  found->offset = offset;
}

std::vector<uint8_t> GgufWriter::Bytes() const {
  std::string out = magic_;
  Append(out, version_);
  Append(out, tensor_count_.value_or(tensors_.size()));
  Append(out, metadata_count_.value_or(pairs_));
  out += metadata_;
  for (const TensorToWrite& tensor : tensors_) {
    AppendString(out, tensor.name);
    Append(out, static_cast<uint32_t>(tensor.shape.size()));
    for (uint64_t size : tensor.shape) Append(out, size);
    Append(out, tensor.type);
    Append(out, tensor.offset);
  }
  for (const TensorToWrite& tensor : tensors_) {
    out.resize(PadTo(out.size(), alignment_));
    out += tensor.bytes;
  }
  return {out.begin(), out.end()};
}

absl::Status GgufWriter::Write(const std::string& path) const {
  const std::vector<uint8_t> bytes = Bytes();
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) return Internal("{}: could not be written; check that its folder exists", path);
  return absl::OkStatus();
}

std::shared_ptr<const GgufFile> ReadBack(const GgufWriter& writer, const std::string& name) {
  struct Owner {
    std::vector<uint8_t> bytes;
    std::shared_ptr<const GgufFile> file;
  };
  auto owner = std::make_shared<Owner>();
  owner->bytes = writer.Bytes();
  auto file = GgufFile::Parse(owner->bytes, name);
  PALIMPSEST_CHECK(file.ok(), "{}", Message(file.status()));
  owner->file = *std::move(file);
  return {owner, owner->file.get()};
}

GgufWriter SampleGguf() {
  GgufWriter writer;
  writer.Add("general.architecture", "sample");
  writer.Add("s.u8", uint8_t{200});
  writer.Add("s.i8", int8_t{-100});
  writer.Add("s.u16", uint16_t{60'000});
  writer.Add("s.i16", int16_t{-30'000});
  writer.Add("s.u32", uint32_t{4'000'000'000});
  writer.Add("s.i32", int32_t{-2'000'000'000});
  writer.Add("s.f32", 0.5f);
  writer.Add("s.bool", true);
  writer.Add("s.string", "text");
  writer.Add("s.u64", uint64_t{1} << 40);
  writer.Add("s.i64", -(int64_t{1} << 40));
  writer.Add("s.f64", 0.25);
  writer.AddArray<uint8_t>("a.u8", {1, 255});
  writer.AddArray<int8_t>("a.i8", {-1, 1});
  writer.AddArray<uint16_t>("a.u16", {1, 65'535});
  writer.AddArray<int16_t>("a.i16", {-1, 1});
  writer.AddArray<uint32_t>("a.u32", {1, 4'294'967'295});
  writer.AddArray<int32_t>("a.i32", {-1, 1});
  writer.AddArray<float>("a.f32", {0.5f, -2.0f});
  writer.AddArray<bool>("a.bool", {true, false});
  writer.AddArray<std::string>("a.string", {"", "one", "two"});
  writer.AddArray<uint64_t>("a.u64", {1, 1ull << 62});
  writer.AddArray<int64_t>("a.i64", {-1, 1});
  writer.AddArray<double>("a.f64", {0.5, -2.0});
  writer.AddArray<uint32_t>("a.empty", {});
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<uint8_t> halves(16, 0x3c), blocks(2 * 34, 1), unknown(10, 9);
  writer.AddF32("matrix", {4, 2}, values);
  writer.AddTensor("halves", {8}, TensorType::kF16, halves);
  writer.AddTensor("blocks", {32, 1, 2}, TensorType::kQ8_0, blocks);
  writer.AddTensor("unknown", {5}, 99, unknown);
  writer.AddF32("vector", {3}, std::span(values).first(3));
  return writer;
}

}  // namespace palimpsest
