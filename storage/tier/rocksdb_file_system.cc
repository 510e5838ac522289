#include "storage/tier/rocksdb_file_system.h"

#include <rocksdb/file_system.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <utility>

namespace palimpsest {
namespace {

constexpr size_t kHugePage = 2 << 20;
constexpr size_t kLongRead = 16 << 10;  // a tile; of less the copy costs about as much as scattered pages do

// Of this thread, for as long as it lives. Null: the machine has no memory for it.
char* HugePage() {
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<char, Free> page;
  if (page == nullptr) {
    page.reset(static_cast<char*>(std::aligned_alloc(kHugePage, kHugePage)));
    if (page != nullptr) ::madvise(page.get(), kHugePage, MADV_HUGEPAGE);  // a hint; may be refused
  }
  return page.get();
}

class DirectFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  using FSRandomAccessFileOwnerWrapper::FSRandomAccessFileOwnerWrapper;

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options, rocksdb::Slice* result,
                         char* scratch, rocksdb::IODebugContext* debug) const override {
    char* const page = n >= kLongRead && n <= kHugePage ? HugePage() : nullptr;
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
