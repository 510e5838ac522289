#include "coordinator/http/api_keys_file.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <system_error>

#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest::http {
namespace {

constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kNameBytesMax = 128;

// "2027-01-31": the first second after that day, UTC.
absl::StatusOr<int64_t> EndOfDay(const std::string& text) {
  const auto number = [&](size_t at, size_t digits, int& out) {
    const char* const begin = text.data() + at;
    const auto [end, error] = std::from_chars(begin, begin + digits, out);
    return error == std::errc() && end == begin + digits;
  };
  int year = 0, month = 0, day = 0;
  const bool shaped = text.size() == 10 && text[4] == '-' && text[7] == '-' && number(0, 4, year) &&
                      number(5, 2, month) && number(8, 2, day);
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!shaped || year <= 0 || month <= 0 || day <= 0 || !date.ok()) {
    return InvalidArgument("expires {}: expected a day like 2027-01-31", Quoted(text));
  }
  return std::chrono::duration_cast<std::chrono::seconds>(
             (std::chrono::sys_days(date) + std::chrono::days(1)).time_since_epoch())
      .count();
}

absl::StatusOr<std::string> NameText(std::string_view field, const std::string& text) {
  if (text.empty() || text.size() > kNameBytesMax || !IsPlainText(text)) {
    return InvalidArgument("{}: 1 to {} bytes of plain text", field, kNameBytesMax);
  }
  return text;
}

absl::Status SetField(const std::string& field, const std::string& text, ApiKeyEntry& entry) {
  if (field == "name") {
    PALIMPSEST_ASSIGN_OR_RETURN(entry.name, NameText(field, text));
  } else if (field == "tenant") {
    PALIMPSEST_ASSIGN_OR_RETURN(entry.tenant, NameText(field, text));
  } else if (field == "sha256") {
    const auto hash = Hash256::FromHex(text);
    if (!hash.ok())
      return InvalidArgument("sha256: 64 hex digits; `palimpsest serve --make-key` prints them");
    entry.hash = *hash;
  } else if (field == "expires") {
    PALIMPSEST_ASSIGN_OR_RETURN(entry.expired_from_unix_seconds, EndOfDay(text));
  } else if (field == "concurrent" || field == "requests_per_minute") {
    const auto number = ParseInteger(text);
    if (!number.ok() || *number < 1 || *number > 1'000'000) {
      return InvalidArgument("{} {}: a whole number from 1 to 1000000", field, Quoted(text));
    }
    (field == "concurrent" ? entry.concurrent : entry.requests_per_minute) = *number;
  } else {
    static const std::vector<std::string> known = {"name",    "sha256",     "tenant",
                                                   "expires", "concurrent", "requests_per_minute"};
    return InvalidArgument("unknown field {}{}", Quoted(field), DidYouMean(field, known));
  }
  return absl::OkStatus();
}

absl::Status At(std::string_view name, const YAML::Node& node, std::string_view what) {
  return InvalidArgument("{} line {}: {}", OneLine(name), node.Mark().line + 1, what);
}

absl::StatusOr<ApiKeyEntry> ReadEntry(const YAML::Node& node, std::string_view name) {
  if (!node.IsMap()) return At(name, node, "a key is a list item with name and sha256");
  ApiKeyEntry entry;
  std::set<std::string> seen;
  for (const auto& pair : node) {
    if (!pair.first.IsScalar()) return At(name, pair.first, "a field must be a name");
    const std::string field = pair.first.Scalar();
    if (!pair.second.IsScalar())
      return At(name, pair.first, fmt::format("{}: expected one value", Quoted(field)));
    if (!seen.insert(field).second)
      return At(name, pair.first, fmt::format("{} stands twice", Quoted(field)));
    const absl::Status status = SetField(field, pair.second.Scalar(), entry);
    if (!status.ok()) return At(name, pair.first, Message(status));
  }
  if (!seen.contains("name") || !seen.contains("sha256")) {
    return At(name, node, "a key needs both name and sha256");
  }
  if (entry.tenant.empty()) entry.tenant = entry.name;
  return entry;
}

absl::StatusOr<std::vector<ApiKeyEntry>> ReadRoot(const YAML::Node& root, std::string_view name) {
  if (!root.IsMap() || root.size() != 1 || !root["keys"] || !root["keys"].IsSequence()) {
    return At(name, root, "expected `keys:` and a list under it");
  }
  std::vector<ApiKeyEntry> entries;
  std::set<std::string> names, hashes;
  for (const YAML::Node& node : root["keys"]) {
    PALIMPSEST_ASSIGN_OR_RETURN(ApiKeyEntry entry, ReadEntry(node, name));
    if (!names.insert(entry.name).second) {
      return At(name, node, fmt::format("the name {} stands twice", Quoted(entry.name)));
    }
    if (!hashes.insert(entry.hash.ToHex()).second) {
      return At(name, node, fmt::format("key {} has the sha256 of another one", Quoted(entry.name)));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::vector<ApiKeyEntry>> ParseApiKeys(std::string_view yaml, std::string_view name) {
  if (yaml.size() > kFileBytesMax) {
    return InvalidArgument("{}: {} bytes, a file of keys has at most {}", OneLine(name), yaml.size(),
                           kFileBytesMax);
  }
  try {  // the only place that yaml-cpp's exceptions reach
    return ReadRoot(YAML::Load(std::string(yaml)), name);
  } catch (const YAML::Exception& error) {
    return InvalidArgument("{} line {}: not YAML: {}", OneLine(name), error.mark.line + 1,
                           OneLine(error.msg));
  } catch (const std::exception& error) {
    return InvalidArgument("{}: not YAML: {}", OneLine(name), OneLine(error.what()));
  }
}

absl::StatusOr<std::vector<ApiKeyEntry>> ReadApiKeysFile(const std::string& file) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(file.c_str(), "rb"), std::fclose);
  std::string text(kFileBytesMax + 1, '\0');  // one more, to be refused
  if (in != nullptr) text.resize(std::fread(text.data(), 1, text.size(), in.get()));
  if (in == nullptr || std::ferror(in.get()) != 0) {
    const int error = errno;
    const auto code = error == ENOENT   ? absl::StatusCode::kNotFound
                      : error == EACCES ? absl::StatusCode::kPermissionDenied
                                        : absl::StatusCode::kInvalidArgument;
    return Error(code, "server.api_keys_file {}: {}; `palimpsest serve --make-key` prints a first entry",
                 Quoted(file, 4096), std::generic_category().message(error));
  }
  return ParseApiKeys(text, file);
}

}  // namespace palimpsest::http
