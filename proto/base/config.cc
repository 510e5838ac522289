#include "proto/base/config.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <sstream>

#include "proto/base/config_table.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

using config_internal::Field;
using config_internal::FindField;
using config_internal::SectionOf;
using config_internal::Table;

constexpr std::string_view kPrefix = "PALIMPSEST_";
constexpr size_t kFileBytesMax = 1 << 20;
constexpr std::string_view kTestPrefix = "PALIMPSEST_TEST_";
constexpr std::string_view kFileVariable = "PALIMPSEST_CONFIG";
// Of commands, not of the process: where a server is, and the key it asks for.
constexpr std::string_view kServerVariable = "PALIMPSEST_SERVER", kKeyVariable = "PALIMPSEST_API_KEY";

absl::Status At(std::string_view source, std::string_view key, const absl::Status& status) {
  return Error(status.code(), "{}: {}: {}", source, key, Message(status));
}

absl::Status Set(Config& config, const Field& field, std::string_view text, const std::string& source) {
  absl::Status status = field.parse(config, text);
  if (status.ok()) status = field.check(config);
  if (!status.ok()) return At(source, field.key, status);
  config.sources[field.key] = source;
  return absl::OkStatus();
}

// ---- The file ----

bool IsSection(std::string_view name) {
  return std::any_of(Table().begin(), Table().end(),
                     [&](const Field& field) { return SectionOf(field.key) == name; });
}

absl::Status UnknownKey(const std::string& source, const std::string& key) {
  std::vector<std::string> names;
  std::string hint;
  const std::string tail = fmt::format(".{}", key.substr(key.rfind('.') + 1));
  for (const Field& field : Table()) {
    names.push_back(field.key);
    if (field.key.ends_with(tail)) hint = fmt::format("; did you mean {}?", field.key);  // the wrong section
  }
  for (const Field& field : Table()) names.push_back(SectionOf(field.key));
  if (hint.empty()) hint = DidYouMean(key, names);
  return InvalidArgument("{}: unknown key {}{}", source, Quoted(key), hint);
}

// Takes the events of one YAML document into `config`: maps of one or two levels, one value each. After the
// first error it ignores what follows.
class FileReader final : public YAML::EventHandler {
 public:
  FileReader(std::string_view name, Config& config) : name_(OneLine(name)), config_(config) {}
  const absl::Status& status() const { return status_; }

 private:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { OnValue(mark, nullptr); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string& text) override {
    OnValue(mark, &text);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(InvalidArgument("{}: an alias (*name) is not supported here: write the value", Source(mark)));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    if (status_.ok()) Fail(NotOneValue(mark, "a list"));
  }
  void OnSequenceEnd() override {}

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    if (!status_.ok()) return;
    const bool root = level_ == 0, section = level_ == 1 && has_key_ && IsSection(key_);
    if (!root && !section) return Fail(NotOneValue(mark, "a section"));
    if (section) section_ = key_ + ".";
    has_key_ = false;
    ++level_;
  }
  void OnMapEnd() override {
    section_.clear();
    --level_;
  }

  // A key or a value; `text` is null for YAML's null.
  void OnValue(const YAML::Mark& mark, const std::string* text) {
    if (!status_.ok()) return;
    if (level_ == 0) {
      if (text != nullptr) Fail(InvalidArgument("{}: expected `key: value` lines", Source(mark)));
      return;  // nothing, or comments only
    }
    has_key_ = !has_key_;
    Fail(has_key_ ? OnKey(mark, text) : OnKeyValue(text));
  }

  absl::Status OnKey(const YAML::Mark& mark, const std::string* text) {
    key_source_ = Source(mark);
    if (text == nullptr) return InvalidArgument("{}: a key must be a name", key_source_);
    if (section_.empty() && text->find('.') != std::string::npos) {
      return InvalidArgument("{}: write {} as a section with the key under it", key_source_, Quoted(*text));
    }
    key_ = section_ + *text;
    if (!seen_.insert(key_).second) return InvalidArgument("{}: {} stands twice", key_source_, Quoted(key_));
    const bool known = FindField(key_) != nullptr || (section_.empty() && IsSection(key_));
    return known ? absl::OkStatus() : UnknownKey(key_source_, key_);
  }

  absl::Status OnKeyValue(const std::string* text) {
    const Field* field = FindField(key_);
    if (field == nullptr) {
      if (text == nullptr) return absl::OkStatus();  // a section whose keys are all commented out
      return InvalidArgument("{}: {} is a section: expected `key: value` lines under it", key_source_, key_);
    }
    if (text == nullptr) {
      return InvalidArgument("{}: {}: expected a value ({}), not nothing", key_source_, key_, field->accepts);
    }
    return Set(config_, *field, *text, key_source_);
  }

  absl::Status NotOneValue(const YAML::Mark& mark, std::string_view found) const {
    if (level_ == 0) return InvalidArgument("{}: expected `key: value` lines, not {}", Source(mark), found);
    if (!has_key_) return InvalidArgument("{}: a key must be a name, not {}", Source(mark), found);
    if (IsSection(key_)) {
      return InvalidArgument("{}: {} is a section: expected `key: value` lines under it", key_source_, key_);
    }
    return InvalidArgument("{}: {}: expected one value, not {}", key_source_, key_, found);
  }

  std::string Source(const YAML::Mark& mark) const { return fmt::format("{} line {}", name_, mark.line + 1); }
  void Fail(const absl::Status& status) { status_.Update(status); }  // keeps the first error

  const std::string name_;
  Config& config_;
  absl::Status status_;
  int level_ = 0;           // 1 in the top map, 2 in a section's
  std::string section_;     // "device." in that section, else ""
  bool has_key_ = false;    // its value comes next
  std::string key_;         // the last key, dotted
  std::string key_source_;  // "c.yaml line 3"
  std::set<std::string> seen_;
};

// The only function that yaml-cpp's exceptions reach.
absl::Status ReadYaml(std::string_view yaml, std::string_view name, Config& config) {
  if (yaml.size() > kFileBytesMax) {
    return InvalidArgument("{}: {} bytes, a config file has at most {}", OneLine(name), yaml.size(),
                           kFileBytesMax);
  }
  try {
    std::istringstream stream{std::string(yaml)};
    YAML::Parser parser(stream);
    FileReader reader(name, config);
    parser.HandleNextDocument(reader);
    PALIMPSEST_RETURN_IF_ERROR(reader.status());
    // Not YAML::LoadAll: on some malformed texts yaml-cpp 0.7 finds empty documents without end.
    Config ignored;
    FileReader more(name, ignored);
    if (!parser.HandleNextDocument(more)) return absl::OkStatus();
    return InvalidArgument("{}: text after the end of the YAML document", OneLine(name));
  } catch (const YAML::Exception& error) {
    return InvalidArgument("{} line {}: not YAML: {}", OneLine(name), error.mark.line + 1,
                           OneLine(error.msg));
  } catch (const std::exception& error) {
    return InvalidArgument("{}: not YAML: {}", OneLine(name), OneLine(error.what()));
  }
}

absl::Status FileError(const std::string& path, int error) {
  const auto code = error == ENOENT   ? absl::StatusCode::kNotFound
                    : error == EACCES ? absl::StatusCode::kPermissionDenied
                                      : absl::StatusCode::kInvalidArgument;
  return Error(code, "config file {}: {}; check --config and {}", Quoted(path, 256), std::strerror(error),
               kFileVariable);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return FileError(path, errno);
  std::string text(kFileBytesMax + 1, '\0');  // one more, for ReadYaml to refuse
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return FileError(path, errno);
  return text;
}

// ---- The environment ----

std::string Variable(const ConfigInputs& inputs, std::string_view name) {
  const auto it = inputs.environment.find(std::string(name));
  return it == inputs.environment.end() ? "" : it->second;
}

absl::Status ReadVariable(Config& config, const std::string& name, const std::string& value) {
  const std::string own_part = name.substr(kPrefix.size());
  std::vector<std::string> known;
  for (const Field& field : Table()) {
    known.push_back(field.variable);
    if (own_part == field.variable) return Set(config, field, value, name);
  }
  // Compared without the prefix, which would make everything look near.
  const std::string nearest = Nearest(own_part, known);
  return InvalidArgument("unknown environment variable {}{}", Quoted(name),
                         nearest.empty() ? "" : fmt::format("; did you mean {}{}?", kPrefix, nearest));
}

absl::Status ReadEnvironment(const ConfigInputs& inputs, Config& config) {
  for (const auto& [name, value] : inputs.environment) {
    if (!name.starts_with(kPrefix) || name.starts_with(kTestPrefix)) continue;
    if (name == kFileVariable || name == kServerVariable || name == kKeyVariable) continue;
    if (value.empty()) continue;
    PALIMPSEST_RETURN_IF_ERROR(ReadVariable(config, name, value));
  }
  return absl::OkStatus();
}

// The XDG base directory rule: a relative $XDG_DATA_HOME is invalid and is ignored.
absl::Status ResolveDataDir(const ConfigInputs& inputs, Config& config) {
  const std::string home = Variable(inputs, "HOME"), xdg = Variable(inputs, "XDG_DATA_HOME");
  std::string& folder = config.data_dir;
  const bool below_home = folder.starts_with("~/");
  if (below_home && home.empty()) {
    return InvalidArgument("data_dir {} begins with ~ and HOME is not set", Quoted(folder));
  }
  if (below_home) folder = home + folder.substr(1);
  if (!folder.empty() || config.sources.contains("data_dir")) return absl::OkStatus();
  if (xdg.starts_with("/")) {
    folder = xdg + "/palimpsest";
  } else if (!home.empty()) {
    folder = home + "/.local/share/palimpsest";
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Config> ParseConfig(std::string_view yaml, std::string_view name, const ConfigInputs& inputs) {
  Config config;
  PALIMPSEST_RETURN_IF_ERROR(ReadYaml(yaml, name, config));
  PALIMPSEST_RETURN_IF_ERROR(ReadEnvironment(inputs, config));
  for (const auto& [key, text] : inputs.flags) {
    const Field* field = FindField(key);
    if (field == nullptr) return UnknownKey("flag", key);
    PALIMPSEST_RETURN_IF_ERROR(Set(config, *field, text, "flag"));
  }
  PALIMPSEST_RETURN_IF_ERROR(ResolveDataDir(inputs, config));
  PALIMPSEST_RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

absl::StatusOr<Config> LoadConfig(const ConfigInputs& inputs) {
  const std::string file = inputs.file.empty() ? Variable(inputs, kFileVariable) : inputs.file;
  if (file.empty()) return ParseConfig("", "no file", inputs);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(file));
  return ParseConfig(yaml, file, inputs);
}

absl::Status ValidateConfig(const Config& config) {
  for (const Field& field : Table()) {
    if (const absl::Status status = field.check(config); !status.ok()) return At("config", field.key, status);
  }
  if (config.data_dir.empty()) {
    return InvalidArgument("data_dir is empty: pass --data-dir, or set PALIMPSEST_DATA_DIR or HOME");
  }
  const Config::Limits& limits = config.limits;
  if (limits.question_bytes > limits.document_bytes) {
    return InvalidArgument(
        "limits.question_bytes {} is above limits.document_bytes {}: lower the one or raise the other",
        FormatBytes(limits.question_bytes), FormatBytes(limits.document_bytes));
  }
  if (limits.stop_bytes > limits.question_bytes) {
    return InvalidArgument(
        "limits.stop_bytes {} is above limits.question_bytes {}: lower the one or raise the other",
        FormatBytes(limits.stop_bytes), FormatBytes(limits.question_bytes));
  }
  return absl::OkStatus();
}

std::string PrintEffective(const Config& config) {
  std::string yaml, section;
  for (const Field& field : Table()) {
    const std::string field_section = SectionOf(field.key);
    if (field_section != section) yaml += fmt::format("{}:\n", field_section);
    section = field_section;
    const std::string name =
        section.empty() ? field.key : fmt::format("  {}", field.key.substr(section.size() + 1));
    const auto source = config.sources.find(field.key);
    yaml += fmt::format("{}: {}  # {}; {}\n", name, field.print(config), field.accepts,
                        source == config.sources.end() ? "default" : OneLine(source->second, 512));
  }
  return yaml;
}

std::vector<ConfigField> ConfigFields() {
  const Config defaults;
  std::vector<ConfigField> fields;
  for (const Field& field : Table()) {
    const std::string variable = fmt::format("{}{}", kPrefix, field.variable);
    const std::string value = field.print(defaults);
    fields.push_back({field.key, variable, field.accepts, value == "\"\"" ? "" : value});
  }
  return fields;
}

}  // namespace palimpsest
