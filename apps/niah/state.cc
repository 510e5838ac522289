#include "apps/niah/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>

#include "proto/base/ids.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// A line is {"check":"DIGEST","cell":CELL}: the digest is of CELL's bytes as they stand there.
constexpr std::string_view kCheck = "{\"check\":\"", kCell = "\",\"cell\":";
constexpr size_t kDigest = 16;

std::string Digest(std::string_view cell) { return Sha256(cell).ToHex().substr(0, kDigest); }

// What stands in a line; nullopt: it is torn or damaged.
std::optional<json::object> CellOf(std::string_view line) {
  if (!line.starts_with(kCheck) || line.size() < kCheck.size() + kDigest + kCell.size() + 1)
    return std::nullopt;
  const std::string_view digest = line.substr(kCheck.size(), kDigest);
  std::string_view rest = line.substr(kCheck.size() + kDigest);
  if (!rest.starts_with(kCell) || !rest.ends_with('}')) return std::nullopt;
  rest.remove_prefix(kCell.size());
  rest.remove_suffix(1);
  if (Digest(rest) != digest) return std::nullopt;
  json::error_code error;
  json::value cell = json::parse(json::string_view(rest.data(), rest.size()), error);
  if (error || !cell.is_object()) return std::nullopt;
  return std::move(cell.get_object());
}

absl::Status FileError(std::string_view what, const std::string& path) {
  return Error(absl::StatusCode::kUnavailable, "{} {}: {}", what, Quoted(path, 4096),
               std::generic_category().message(errno));
}

json::object SettingsJson(const NiahSettings& settings) {
  json::object object;
  for (const auto& [name, value] : settings) object.emplace(name, value);
  return object;
}

// "depths: 0,50 there, 0,100 here".
std::string Differences(const json::object& there, const json::object& here) {
  std::string all;
  const auto text = [](const json::object& of, const json::string_view& name) {
    const json::value* const value = of.if_contains(name);
    return value == nullptr || !value->is_string() ? std::string("nothing")
                                                   : std::string(value->get_string());
  };
  const auto add = [&](const json::string_view& name) {
    const std::string a = text(there, name), b = text(here, name);
    if (a == b) return;
    all += fmt::format("{}{}: {} there, {} here", all.empty() ? "" : "; ", std::string(name), OneLine(a, 200),
                       OneLine(b, 200));
  };
  for (const auto& field : there) add(field.key());
  for (const auto& field : here) {
    if (!there.contains(field.key())) add(field.key());
  }
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NiahState>> NiahState::Open(const std::string& path,
                                                           const NiahSettings& settings,
                                                           std::string_view started) {
  std::error_code error;
  const fs::path folder = fs::absolute(path, error).parent_path();
  if (!error) fs::create_directories(folder, error);
  if (error) {
    return FailedPrecondition("cannot make folder {} for the state of the run: {}",
                              Quoted(folder.string(), 4096), error.message());
  }
  auto file =
      std::make_unique<Descriptor>(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (file->get() < 0) return FileError("cannot open", path);
  if (::flock(file->get(), LOCK_EX | LOCK_NB) != 0) {
    return FailedPrecondition(
        "{} belongs to a run that goes on now; wait for it, or give another --resume FILE",
        Quoted(path, 4096));
  }
  auto state = std::unique_ptr<NiahState>(new NiahState(path, std::move(file)));
  std::ifstream stream(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  // A first line that was torn is no settings, and nothing was finished then.
  if (text.find('\n') == std::string::npos && (text.empty() || text.starts_with(kCheck))) {
    PALIMPSEST_RETURN_IF_ERROR(state->Begin(settings, started));
  } else {
    PALIMPSEST_RETURN_IF_ERROR(state->Read(text, settings));
  }
  return state;
}

absl::Status NiahState::Begin(const NiahSettings& settings, std::string_view started) {
  if (::ftruncate(file_->get(), 0) != 0) return FileError("cannot write", path_);
  started_ = std::string(started);
  return WriteLine(
      json::serialize(json::object{{"settings", SettingsJson(settings)}, {"started", started_}}));
}

absl::Status NiahState::Read(std::string_view text, const NiahSettings& settings) {
  const size_t whole = text.rfind('\n') + 1;
  std::vector<std::string_view> lines;
  for (size_t at = 0; at < whole;) {
    const size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  const std::optional<json::object> head = lines.empty() ? std::nullopt : CellOf(lines.front());
  const json::value* const theirs = head.has_value() ? head->if_contains("settings") : nullptr;
  const json::value* const started = head.has_value() ? head->if_contains("started") : nullptr;
  if (theirs == nullptr || !theirs->is_object() || started == nullptr || !started->is_string()) {
    return DataLoss(
        "{} is not the state of a run of needles, or its first line is damaged; name another file",
        Quoted(path_, 4096));
  }
  const std::string differences = Differences(theirs->get_object(), SettingsJson(settings));
  if (!differences.empty()) {
    return FailedPrecondition(
        "{} is of a run with other settings: {}; run with those, or give another --resume FILE",
        Quoted(path_, 4096), differences);
  }
  started_ = std::string(started->get_string());
  if (whole < text.size() && ::ftruncate(file_->get(), static_cast<off_t>(whole)) != 0) {
    return FileError("cannot write", path_);
  }
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::optional<json::object> cell = CellOf(lines[i]);
    const json::value* const key = cell.has_value() ? cell->if_contains("key") : nullptr;
    const json::value* const array = cell.has_value() ? cell->if_contains("trials") : nullptr;
    std::vector<NiahTrial> trials;
    bool good = key != nullptr && key->is_string() && array != nullptr && array->is_array();
    for (size_t j = 0; good && j < array->get_array().size(); ++j) {
      const json::value& one = array->get_array()[j];
      absl::StatusOr<NiahTrial> trial =
          one.is_object() ? TrialFromJson(one.get_object()) : InvalidArgument("no trial");
      good = trial.ok();
      if (good) trials.push_back(*std::move(trial));
    }
    if (good) {
      found_[std::string(key->get_string())] = std::move(trials);
    } else {
      ++damaged_lines_;
    }
  }
  return absl::OkStatus();
}

absl::Status NiahState::WriteLine(std::string_view cell) {
  const std::string line = fmt::format("{}{}{}{}}}\n", kCheck, Digest(cell), kCell, cell);
  // One call: a kill leaves all of it or none, or a part without its newline.
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t written = ::write(file_->get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return FileError("cannot write", path_);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  return ::fdatasync(file_->get()) == 0 ? absl::OkStatus() : FileError("cannot write", path_);
}

const std::vector<NiahTrial>* NiahState::Find(const std::string& key) const {
  const auto found = found_.find(key);
  return found == found_.end() ? nullptr : &found->second;
}

absl::Status NiahState::Add(const std::string& key, std::span<const NiahTrial> trials) {
  added_ = true;
  json::array array;
  for (const NiahTrial& trial : trials) array.push_back(TrialToJson(trial));
  return WriteLine(json::serialize(json::object{{"key", key}, {"trials", std::move(array)}}));
}

void NiahState::Remove() { ::unlink(path_.c_str()); }

}  // namespace palimpsest
