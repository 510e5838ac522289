#include "text/byte_alphabet.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace palimpsest {
namespace {

constexpr int kMoved = 68;                   // bytes that do not print
constexpr int kCharacters = 0x100 + kMoved;  // code points of the alphabet are below this

struct Alphabet {
  std::array<uint16_t, 256> character{};    // code point by byte
  std::array<int16_t, kCharacters> byte{};  // byte by code point, -1: not in the alphabet
};

constexpr bool PrintsInLatin1(int byte) {
  return (byte > ' ' && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);  // A0, AD: no-break space, soft hyphen
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  int moved = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = PrintsInLatin1(byte) ? byte : 0x100 + moved++;
    alphabet.character[byte] = static_cast<uint16_t>(character);
    alphabet.byte[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.character[' '] == 0x120 && kAlphabet.character['\n'] == 0x10a);
static_assert(kAlphabet.byte[kCharacters - 1] == 0xad);

}  // namespace

std::optional<std::string> BytesOfAlphabet(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    int character = static_cast<uint8_t>(token[i]);
    if (character >= 0x80) {  // all of the alphabet is below U+0800: two bytes
      if ((character & 0xe0) != 0xc0 || i + 1 == token.size()) return std::nullopt;
      const int second = static_cast<uint8_t>(token[++i]);
      if ((second & 0xc0) != 0x80) return std::nullopt;
      character = (character & 0x1f) << 6 | (second & 0x3f);
      if (character < 0x80) return std::nullopt;  // overlong
    }
    if (character >= kCharacters || kAlphabet.byte[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[character]));
  }
  return bytes;
}

std::string AlphabetOfBytes(std::string_view bytes) {
  std::string token;
  token.reserve(bytes.size() + bytes.size() / 4);
  for (char byte : bytes) {
    const int character = kAlphabet.character[static_cast<uint8_t>(byte)];
    if (character < 0x80) {
      token.push_back(static_cast<char>(character));
    } else {
      token.push_back(static_cast<char>(0xc0 | character >> 6));
      token.push_back(static_cast<char>(0x80 | (character & 0x3f)));
    }
  }
  return token;
}

}  // namespace palimpsest
