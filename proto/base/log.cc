#include "proto/base/log.h"

#include <openssl/rand.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "proto/base/ids.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr size_t kMessageBytesMax = 16 << 10;

constexpr std::pair<std::string_view, LogLevel> kLevels[] = {
    {"trace", LogLevel::kTrace}, {"debug", LogLevel::kDebug}, {"info", LogLevel::kInfo},
    {"warn", LogLevel::kWarn},   {"error", LogLevel::kError}, {"off", LogLevel::kOff},
};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

std::string_view LevelName(spdlog::level::level_enum level) {
  for (const auto& [name, ours] : kLevels) {
    if (ToSpdlog(ours) == level) return name;
  }
  return "off";
}

// %*: our own name of the level ("warn", not "warning").
class LevelFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string_view name = LevelName(message.level);
    out.append(name.data(), name.data() + name.size());
    for (size_t i = name.size(); i < padinfo_.width_; ++i) out.push_back(' ');
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<LevelFlag>(); }
};

class FunctionSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FunctionSink(std::function<void(std::string_view)> write) : write_(std::move(write)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    write_(std::string_view(line.data(), line.size()));
  }
  void flush_() override {}

  const std::function<void(std::string_view)> write_;
};

std::unique_ptr<spdlog::formatter> MakeFormatter(LogFormat format) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc, "\n");
  formatter->add_flag<LevelFlag>('*');
  formatter->set_pattern(
      format == LogFormat::kText
          ? "%Y-%m-%dT%H:%M:%S.%eZ %-5* %v"
          : R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%*","source":"%s:%#","message":"%v"})");
  return formatter;
}

struct Logger {
  std::shared_ptr<spdlog::logger> out;  // a writer keeps it alive while InitLog replaces it
  LogFormat format = LogFormat::kText;
};

Logger MakeLogger(LogOptions options) {
  spdlog::sink_ptr sink;
  if (options.sink) {
    sink = std::make_shared<FunctionSink>(std::move(options.sink));
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  auto logger = std::make_shared<spdlog::logger>("palimpsest", std::move(sink));
  logger->set_level(spdlog::level::trace);  // our own check comes first and is the only one
  logger->flush_on(spdlog::level::trace);
  logger->set_formatter(MakeFormatter(options.format));
  return {std::move(logger), options.format};
}

std::mutex mu;  // guards Current()

Logger& Current() {
  static Logger* const logger = new Logger(MakeLogger({}));  // never destroyed: other statics may log at exit
  return *logger;
}

// `message` is UTF-8 on one line already, without control characters.
std::string JsonEscape(std::string_view message) {
  std::string escaped;
  escaped.reserve(message.size());
  for (const char c : message) {
    if (c == '"' || c == '\\') escaped.push_back('\\');
    escaped.push_back(c);
  }
  return escaped;
}

std::string ProcessKey() {
  std::array<unsigned char, 32> key{};
  PALIMPSEST_CHECK(RAND_bytes(key.data(), key.size()) == 1, "the system gave no random bytes");
  return std::string(key.begin(), key.end());
}

}  // namespace

namespace log_internal {

std::atomic<LogLevel> level{LogLevel::kInfo};

void Write(LogLevel line_level, const char* file, int line, std::string_view message) {
  Logger logger;
  {
    std::lock_guard<std::mutex> lock(mu);
    logger = Current();
  }
  // LogName and statuses were cleaned when they were formatted; this catches what a format string or char
  // brought in. Backslashes are left as they are: they were doubled where they came from outside.
  std::string clean;
  for (const char c : message.substr(0, kMessageBytesMax)) {
    clean.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c);
  }
  if (logger.format == LogFormat::kJson) clean = JsonEscape(clean);
  const char* slash = std::string_view(file).rfind('/') == std::string_view::npos
                          ? file
                          : file + std::string_view(file).rfind('/') + 1;
  logger.out->log(spdlog::source_loc(slash, line, ""), ToSpdlog(line_level),
                  spdlog::string_view_t(clean.data(), clean.size()));
}

}  // namespace log_internal

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name) {
  for (const auto& [known, level] : kLevels) {
    if (name == known) return level;
  }
  return InvalidArgument("log level {}: one of trace, debug, info, warn, error, off", Quoted(name));
}

absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return InvalidArgument("log format {}: text or json", Quoted(name));
}

void InitLog(LogOptions options) {
  const LogLevel level = options.level;
  Logger logger = MakeLogger(std::move(options));
  {
    std::lock_guard<std::mutex> lock(mu);
    std::swap(Current(), logger);
  }
  log_internal::level.store(level, std::memory_order_relaxed);
}

std::string Redacted::ToString() const {
  static const std::string* const key = new std::string(ProcessKey());
  return fmt::format("[{} bytes {}]", text_.size(), HmacSha256(*key, text_).ToHex().substr(0, 8));
}

}  // namespace palimpsest
