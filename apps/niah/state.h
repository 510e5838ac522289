// What a run has finished, in a file beside it: a run that was interrupted or killed goes on behind it.
//
// Form   : JSON lines. The first has the settings and when the run began; each other one all trials of
//          a conversation with a digest of its bytes. Lines are appended, and on the disk before the next one
//          is begun: what a power cut tears is the last line, which is not used.
// Errors : FailedPrecondition: a file of other settings (names each difference), or another process has it;
//          DataLoss: no file of this form. All name the path.
// Threads: one at a time.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/trial.h"
#include "proto/base/descriptor.h"

namespace palimpsest {

// Everything that a run's result depends on, by name.
using NiahSettings = std::vector<std::pair<std::string, std::string>>;

class NiahState {
 public:
  // Reads the file if it is there, else begins it; its folder is made. `started` is when this run began, as
  // text; the file's own is kept.
  static absl::StatusOr<std::unique_ptr<NiahState>> Open(const std::string& path,
                                                         const NiahSettings& settings,
                                                         std::string_view started);

  const std::string& path() const { return path_; }
  const std::string& started() const { return started_; }
  bool has_any() const { return added_ || !found_.empty(); }
  size_t damaged_lines() const { return damaged_lines_; }  // their conversations run again

  // Null: not finished. `key` names a conversation.
  const std::vector<NiahTrial>* Find(const std::string& key) const;
  absl::Status Add(const std::string& key, std::span<const NiahTrial> trials);
  // Of a run that is done and whose results were written.
  void Remove();

 private:
  NiahState(std::string path, std::unique_ptr<Descriptor> file)
      : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Begin(const NiahSettings& settings, std::string_view started);
  absl::Status Read(std::string_view text, const NiahSettings& settings);
  absl::Status WriteLine(std::string_view cell);

  const std::string path_;
  const std::unique_ptr<Descriptor> file_;  // locked
  std::string started_;
  std::map<std::string, std::vector<NiahTrial>> found_;
  size_t damaged_lines_ = 0;
  bool added_ = false;
};

}  // namespace palimpsest
