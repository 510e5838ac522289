// The catalog's key-value store on disk; its .cc is the only file of the catalog that knows RocksDB.
//
// Durable : a synced Write is on disk when it returns, and so is everything written before it. A Write is
//           all or nothing. After a crash the store holds a prefix of what was written.
// Errors  : worded for who runs us, naming the folder. DataLoss: something on disk is damaged; nothing is
//           repaired or removed by itself. ResourceExhausted: disk full; the next Write tries anew.
//           Unavailable: the disk or the system refused something now; a later try may succeed.
//           PermissionDenied.
// Threads : any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace palimpsest {

class CatalogDatabase {
 public:
  // Opens `folder`, or makes it if it is absent or empty: in FOLDER.new, renamed when complete, so that a
  // folder with that name is always a whole store and never one to be made anew over a damaged one.
  static absl::StatusOr<std::unique_ptr<CatalogDatabase>> Open(const std::string& folder);
  virtual ~CatalogDatabase() = default;

  struct Change {
    enum Kind { kPut, kDelete, kDeleteRange } kind;
    std::string key;
    std::string value;  // of kPut; the end of a range (not in it) of kDeleteRange
  };
  virtual absl::Status Write(const std::vector<Change>& changes, bool sync) = 0;

  // The store as it was when the view was made.
  class View {
   public:
    virtual ~View() = default;
    virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const = 0;
    // Calls visit for keys in [begin, end) in order until it returns false.
    virtual absl::Status Scan(
        std::string_view begin, std::string_view end,
        const std::function<bool(std::string_view key, std::string_view value)>& visit) const = 0;
  };
  virtual std::unique_ptr<View> MakeView() const = 0;  // not to outlive the database

  // Rewrites the files that hold keys in [begin, end), so that what was deleted is no longer in them. Waits
  // for views that were made before, up to 10 s: Unavailable. The caller must hold none.
  virtual absl::Status Scrub(std::string_view begin, std::string_view end) = 0;
};

}  // namespace palimpsest
