// Integers in the byte order of our files, wherever they lie.
#pragma once

#include <cstddef>
#include <cstdint>

namespace palimpsest {

template <typename T>
T LoadLittleEndian(const uint8_t* from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<T>(from[i]) << (8 * i));
  return value;
}

template <typename T>
void StoreLittleEndian(uint8_t* to, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace palimpsest
