#include "text/tokenizer_data.h"

#include "proto/base/ids.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 20;
constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxMerges = size_t{1} << 22;

absl::Status CheckId(std::string_view what, int32_t id, int32_t min, size_t tokens) {
  if (id >= min && id < static_cast<int64_t>(tokens)) return absl::OkStatus();
  return InvalidArgument(
      "tokenizer: the {} token has id {}, the vocabulary {} tokens: the model file is damaged", what, id,
      tokens);
}

absl::Status CheckCounts(const TokenizerData& data) {
  if (data.tokens.empty() || data.tokens.size() > kMaxTokens) {
    return InvalidArgument("tokenizer: vocabulary of {} tokens, supported are 1 to {}", data.tokens.size(),
                           kMaxTokens);
  }
  if (data.merges.size() > kMaxMerges) {
    return InvalidArgument("tokenizer: {} merges, supported are at most {}", data.merges.size(), kMaxMerges);
  }
  if (!data.types.empty() && data.types.size() != data.tokens.size()) {
    return InvalidArgument("tokenizer: {} token types for {} tokens: the model file is damaged",
                           data.types.size(), data.tokens.size());
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckId("bos", data.bos, -1, data.tokens.size()));
  PALIMPSEST_RETURN_IF_ERROR(CheckId("eos", data.eos, -1, data.tokens.size()));
  for (int32_t id : data.end_tokens) PALIMPSEST_RETURN_IF_ERROR(CheckId("end", id, 0, data.tokens.size()));
  return absl::OkStatus();
}

absl::Status CheckToken(const TokenizerData& data, size_t id) {
  if (data.tokens[id].size() > kMaxTokenBytes) {
    return InvalidArgument("tokenizer: token {} has {} bytes, supported are at most {}", id,
                           data.tokens[id].size(), kMaxTokenBytes);
  }
  if (absl::Status status = CheckUtf8(data.tokens[id]); !status.ok()) {
    return InvalidArgument("tokenizer: token {}: {}", id, Message(status));
  }
  if (data.types[id] < kNormal || data.types[id] > kByte) {
    return InvalidArgument("tokenizer: token {} has type {}, known are {} to {}: the model file is damaged",
                           id, data.types[id], kNormal, kByte);
  }
  return absl::OkStatus();
}

}  // namespace

// Empty tokens, which some vocabularies have as fillers, are out of reach of any text and left out.
absl::StatusOr<IdByText> CheckAndIndex(const TokenizerData& data) {
  PALIMPSEST_RETURN_IF_ERROR(CheckCounts(data));
  IdByText index;
  index.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    PALIMPSEST_RETURN_IF_ERROR(CheckToken(data, id));
    if (data.tokens[id].empty()) continue;
    const auto [at, inserted] = index.emplace(data.tokens[id], static_cast<int32_t>(id));
    if (!inserted) {
      return InvalidArgument(
          "tokenizer: tokens {} and {} are both {}: one text must have one id; convert the model again",
          at->second, id, Quoted(data.tokens[id]));
    }
  }
  return index;
}

// Each string and list stands behind its length, so that no two contents write the same bytes.
std::string HashOf(const TokenizerData& data) {
  std::string bytes = "palimpsest tokenizer 1";
  const auto number = [&bytes](uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<char>(value >> shift));
  };
  const auto text = [&](std::string_view value) {
    number(value.size());
    bytes += value;
  };
  const auto texts = [&](const std::vector<std::string>& values) {
    number(values.size());
    for (const std::string& value : values) text(value);
  };
  const auto numbers = [&](const std::vector<int32_t>& values) {
    number(values.size());
    for (int32_t value : values) number(static_cast<uint32_t>(value));
  };
  text(data.pre);
  texts(data.tokens);
  numbers(data.types);
  texts(data.merges);
  numbers({data.bos, data.eos});
  numbers(data.end_tokens);
  number(data.add_bos);
  return Sha256(bytes).ToHex();
}

std::optional<uint8_t> ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int byte = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    byte = byte * 16 + digit;
  }
  return static_cast<uint8_t>(byte);
}

std::string PieceOf(const TokenizerData& data, size_t id) {
  const std::string& token = data.tokens[id];
  switch (data.types[id]) {
    case kUnknown:
    case kControl:
    case kUserDefined:
      return token;
    case kByte:
      if (const auto byte = ByteOf(token)) return std::string(1, static_cast<char>(*byte));
      break;
  }
  return BytesOfAlphabet(token).value_or(token);
}

}  // namespace palimpsest
