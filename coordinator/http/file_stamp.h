// What changes when a file is written anew or replaced: how one that is read again on a change is watched.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <tuple>

namespace palimpsest::http {

using FileStamp =
    std::tuple<int64_t, int64_t, int64_t, int64_t>;  // inode, bytes, and the time of the last write

// All zero if there is no such file.
inline FileStamp StampOf(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return {};
  return {static_cast<int64_t>(info.st_ino), info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

}  // namespace palimpsest::http
