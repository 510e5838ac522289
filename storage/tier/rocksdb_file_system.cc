#include "storage/tier/rocksdb_file_system.h"

#include <rocksdb/file_system.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <utility>

namespace palimpsest {
namespace {

constexpr size_t kHugePage = 2 << 20;
constexpr size_t kLongRead = 16 << 10;  // a tile; of less the copy costs about as much as scattered pages do

// Mapped, not of the heap: what the heap gives may have been used before, in small pages, and stays so.
class HugePage {
 public:
  HugePage() {
    void* const map = ::mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return;
    map_ = map;
    const auto at = reinterpret_cast<uintptr_t>(map);
    page_ = static_cast<char*>(map) + ((at + kHugePage - 1) / kHugePage * kHugePage - at);
    ::madvise(page_, kHugePage, MADV_HUGEPAGE);  // a hint; may be refused
  }
  ~HugePage() {
    if (map_ != nullptr) ::munmap(map_, kMapped);
  }
  HugePage(const HugePage&) = delete;
  HugePage& operator=(const HugePage&) = delete;
  char* get() { return page_; }  // null: the machine has no memory for it

 private:
  static constexpr size_t kMapped = 2 * kHugePage;  // one of them is aligned; the rest is never touched
  void* map_ = nullptr;
  char* page_ = nullptr;
};

// Of this thread, for as long as it lives.
char* ThreadsPage() {
  thread_local HugePage page;
  return page.get();
}

class DirectFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  using FSRandomAccessFileOwnerWrapper::FSRandomAccessFileOwnerWrapper;

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options, rocksdb::Slice* result,
                         char* scratch, rocksdb::IODebugContext* debug) const override {
    char* const page = n >= kLongRead && n <= kHugePage ? ThreadsPage() : nullptr;
    if (page == nullptr) return target()->Read(offset, n, options, result, scratch, debug);
    rocksdb::IOStatus status = target()->Read(offset, n, options, result, page, debug);
    if (status.ok()) {
      std::memcpy(scratch, result->data(), result->size());
      *result = rocksdb::Slice(scratch, result->size());
    }
    return status;
  }
};

class HugePageReads final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "HugePageReads"; }

  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = target()->NewRandomAccessFile(path, options, file, debug);
    if (status.ok() && options.use_direct_reads) *file = std::make_unique<DirectFile>(std::move(*file));
    return status;
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> ReadThroughHugePages(const std::shared_ptr<rocksdb::FileSystem>& base) {
  return std::make_shared<HugePageReads>(base);
}

}  // namespace palimpsest
