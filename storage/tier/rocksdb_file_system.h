// How RocksDB's long reads reach the disk: through memory that lies together.
//
// A read past the page cache goes to the disk page by page of its target, and RocksDB's buffers are scattered
// over memory in pages of 4 KiB. Measured on a virtual disk (virtio), reads of 132 KiB, 4 or 8 threads: 1.2
// GB/s into such buffers, 2.3 GB/s into huge pages. So long reads go into a huge page of the thread that
// reads and are copied from there, which costs a thirtieth of what it saves.
#pragma once

#include <memory>

namespace rocksdb {
class FileSystem;
}

namespace palimpsest {

// Errors and everything but direct reads of 16 KiB to 2 MiB: as `base` has them.
std::shared_ptr<rocksdb::FileSystem> ReadThroughHugePages(const std::shared_ptr<rocksdb::FileSystem>& base);

}  // namespace palimpsest
