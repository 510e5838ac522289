#include "apps/bench/raw_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/tensor.h"
#include "proto/base/cores.h"
#include "proto/base/quote.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// In huge pages: a disk fills them faster than scattered ones.
AlignedBuffer<uint8_t> HugePages(int64_t bytes) {
  constexpr int64_t kHugePage = 2 << 20;
  return AlignedBuffer<uint8_t>(std::max(bytes, kHugePage));
}

// 0, or the error of one pread.
int ReadWhole(int fd, uint8_t* to, int64_t bytes, int64_t offset) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = ::pread(fd, to + done, static_cast<size_t>(bytes - done), offset + done);
    if (n == 0) return EIO;  // shorter than what was written
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) done += n;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RawFile>> RawFile::Make(const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
  int fd = ::open(path.c_str(), kFlags | O_DIRECT, 0600);
  const bool direct = fd >= 0;
  if (!direct && errno == EINVAL) fd = ::open(path.c_str(), kFlags, 0600);
  const int error = errno;
  std::unique_ptr<RawFile> file(new RawFile(path, fd, direct));
  if (fd < 0) return file->Failed("making", error);
  return file;
}

absl::Status RawFile::Failed(const char* doing, int error) const {
  const std::string what = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT)
    return ResourceExhausted("{} {}: {}; free some space", doing, Quoted(path_, 4096), what);
  return Error(absl::StatusCode::kUnavailable, "{} {}: {}", doing, Quoted(path_, 4096), what);
}

absl::Status RawFile::Append(int64_t bytes) {
  constexpr int64_t kPiece = 1 << 20;
  const AlignedBuffer<uint8_t> buffer = HugePages(kPiece);
  RngSequence random(Rng(8));  // a disk that drops zeros or packs would be too fast
  for (int64_t i = 0; i < kPiece; ++i) buffer[i] = static_cast<uint8_t>(random.Next());
  for (const int64_t end = bytes_ + bytes; bytes_ < end;) {
    const int64_t piece = std::min(kPiece, end - bytes_);
    const ssize_t n = ::pwrite(file_.get(), buffer.data(), static_cast<size_t>(piece), bytes_);
    if (n < 0 && errno != EINTR) return Failed("writing", errno);
    if (n > 0) bytes_ += n;
  }
  return ::fdatasync(file_.get()) == 0 ? absl::OkStatus() : Failed("writing", errno);
}

absl::Status RawFile::Read(std::span<const int64_t> offsets, int64_t bytes, int threads) const {
  std::atomic<size_t> next{0};
  std::atomic<int> error{0};
  const auto read = [&] {
    RunOnAllCores();
    const AlignedBuffer<uint8_t> buffer = HugePages(bytes);
    for (size_t i = next++; i < offsets.size() && error == 0; i = next++) {
      if (const int failed = ReadWhole(file_.get(), buffer.data(), bytes, offsets[i]); failed != 0)
        error = failed;
    }
  };
  std::vector<std::thread> readers;
  readers.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) readers.emplace_back(read);
  for (std::thread& reader : readers) reader.join();
  return error == 0 ? absl::OkStatus() : Failed("reading", error);
}

}  // namespace palimpsest
