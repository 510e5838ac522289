// A disk that loses power: the machine's files below RocksDB, up to a moment when all that was not synced is
// lost in part and the process is killed.
//
// Lost   : of a file the bytes behind its last sync, from a random place on; of a folder the files that were
//          made, renamed, linked or deleted since its last sync, the last of them first. Torn, a file keeps
//          its length, and zeros stand where bytes were lost: what ext4 and XFS rule out for appended bytes,
//          and other file systems do not.
// Threads: any; at the moment of the cut all changes wait, for good.
#pragma once

#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace palimpsest {

class PowerCut final : public rocksdb::FileSystemWrapper {
 public:
  // Below `folder`, after so many changes of files or syncs. What was deleted and may be back waits in
  // `folder`.lost, which the next one empties.
  PowerCut(std::string folder, uint64_t changes, uint64_t seed, bool torn);
  const char* Name() const override { return "PowerCut"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* folder,
                                 rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override;

 private:
  class File;
  class Folder;
  struct Written {  // of one file, whatever its names
    std::string path;
    uint64_t synced = 0, end = 0;
  };
  struct Change {         // of a name
    std::string made;     // empty: `back` was deleted
    std::string back;     // what `made` was called before; empty: nothing
    std::string instead;  // what was overwritten or deleted, where it waits; empty: nothing
  };

  // One more; the last one does not return. Requires mu_.
  void Count();
  void Lose();
  void LoseBytes(const Written& file);
  void Undo(const Change& change);
  std::string PutAside(const std::string& path);  // where it waits; empty: there was none
  std::vector<Change>& ChangesOf(const std::string& path);

  const std::string lost_;
  const bool torn_;
  std::mutex mu_;  // guards what follows
  uint64_t left_;
  std::mt19937_64 random_;
  uint64_t aside_ = 0;
  std::map<std::string, std::shared_ptr<Written>> files_;  // by name
  std::map<std::string, std::vector<Change>> changes_;     // by folder, since its last sync
};

}  // namespace palimpsest
