// What TokenizerData says, checked: it comes from a model file, which is untrusted.
//
// Threads: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "text/tokenizer.h"

namespace palimpsest {

// Values of TokenizerData::types.
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;

// Such tokens never come from text that is not parsed for them.
inline bool IsSpecialType(int32_t type) { return type == kControl || type == kUnknown; }

using IdByText = absl::flat_hash_map<std::string_view, int32_t>;

// Checks all but the merges, and maps each token as written to its id; the keys are views into `data.tokens`.
// InvalidArgument for counts, lengths, types and ids out of range, and for two tokens of the same text.
// REQUIRES: `data.types` is filled in.
absl::StatusOr<IdByText> CheckAndIndex(const TokenizerData& data);

// SHA-256 over every field, hex.
std::string HashOf(const TokenizerData& data);

// The byte that a token of type 6 such as "<0x0A>" stands for.
std::optional<uint8_t> ByteOf(std::string_view token);

// The bytes of token `id` in a text: special tokens as written, byte tokens their byte, the others by the
// byte alphabet. Tokens with a character outside of it (added ones that the file calls normal) are as written
// too.
std::string PieceOf(const TokenizerData& data, size_t id);

}  // namespace palimpsest
