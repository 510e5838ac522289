#include "proto/base/config_table.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest::config_internal {
namespace {

constexpr size_t kTextBytesMax = 4096;  // a path

constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20, kGiB = 1 << 30, kTiB = kGiB << 10;

// "DEVICE_ARENA_BYTES" of device.arena_bytes.
std::string VariableOf(std::string_view key) {
  std::string name;
  for (const char c : key) {
    name.push_back(c == '.' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  }
  return name;
}

// How an integer is written: in bytes, as a count of tokens, or plainly.
struct Notation {
  std::string_view noun;
  absl::StatusOr<int64_t> (*parse)(std::string_view);
  std::string (*format)(int64_t);
};
const Notation kBytes = {"bytes", ParseBytes, FormatBytes};
const Notation kTokens = {"tokens", ParseCount, FormatCount};
const Notation kPlain = {"whole number", ParseInteger,
                         [](int64_t number) { return fmt::format("{}", number); }};

struct IntegerRange {
  int64_t min, max;
  bool or_zero = false;  // 0 is allowed too and means something else
};

template <typename Get>
Field Integer(const char* key, Get get, Notation notation, IntegerRange range) {
  const std::string accepts = fmt::format("{}, {}{} to {}", notation.noun, range.or_zero ? "0 or " : "",
                                          notation.format(range.min), notation.format(range.max));
  return {key,
          VariableOf(key),
          accepts,
          [=](Config& config, std::string_view text) {
            PALIMPSEST_ASSIGN_OR_RETURN(get(config), notation.parse(text));
            return absl::OkStatus();
          },
          [=](const Config& config) {
            const int64_t number = get(config);
            const bool in_range =
                (number >= range.min && number <= range.max) || (range.or_zero && number == 0);
            if (in_range) return absl::OkStatus();
            return InvalidArgument("{} is out of range; accepted: {}",
                                   number < 0 ? fmt::format("{}", number) : notation.format(number), accepts);
          },
          [=](const Config& config) { return notation.format(get(config)); }};
}

struct RealRange {
  double min, max;
  bool above_min = false;  // min itself is not allowed
};

template <typename Get>
Field Real(const char* key, Get get, RealRange range) {
  const std::string accepts =
      fmt::format("number, {}{} to {}", range.above_min ? "above " : "", range.min, range.max);
  return {key,
          VariableOf(key),
          accepts,
          [=](Config& config, std::string_view text) {
            PALIMPSEST_ASSIGN_OR_RETURN(get(config), ParseReal(text));
            return absl::OkStatus();
          },
          [=](const Config& config) {
            const double number = get(config);  // a comparison with NaN is false
            if ((range.above_min ? number > range.min : number >= range.min) && number <= range.max) {
              return absl::OkStatus();
            }
            return InvalidArgument("{} is out of range; accepted: {}", number, accepts);
          },
          [=](const Config& config) { return fmt::format("{}", get(config)); }};
}

template <typename Get>
Field Bool(const char* key, Get get) {
  return {key,
          VariableOf(key),
          "true or false",
          [=](Config& config, std::string_view text) {
            if (text != "true" && text != "false") {
              return InvalidArgument("{} is not true or false", Quoted(text));
            }
            get(config) = text == "true";
            return absl::OkStatus();
          },
          [](const Config&) { return absl::OkStatus(); },
          [=](const Config& config) { return std::string(get(config) ? "true" : "false"); }};
}

template <typename Get>
Field Choice(const char* key, Get get, std::vector<std::string> choices) {
  std::string accepts = choices[0];
  for (size_t i = 1; i < choices.size(); ++i) {
    accepts += fmt::format("{}{}", i + 1 < choices.size() ? ", " : " or ", choices[i]);
  }
  return {key,
          VariableOf(key),
          accepts,
          [=](Config& config, std::string_view text) {
            get(config) = std::string(text);
            return absl::OkStatus();
          },
          [=](const Config& config) {
            const std::string& choice = get(config);
            if (std::find(choices.begin(), choices.end(), choice) != choices.end()) return absl::OkStatus();
            return InvalidArgument("{} is not {}{}", Quoted(choice), accepts, DidYouMean(choice, choices));
          },
          [=](const Config& config) { return get(config); }};
}

std::string YamlQuoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  quoted.push_back('"');
  return quoted;
}

template <typename Get>
Field Text(const char* key, Get get, const char* accepts) {
  return {key,
          VariableOf(key),
          accepts,
          [=](Config& config, std::string_view text) {
            get(config) = std::string(text);
            return absl::OkStatus();
          },
          [=](const Config& config) {
            const std::string& text = get(config);
            if (text.size() > kTextBytesMax) {
              return InvalidArgument("{} bytes of text, at most {} are allowed", text.size(), kTextBytesMax);
            }
            if (!IsPlainText(text)) {
              return InvalidArgument("{} holds control characters or is not UTF-8", Quoted(text));
            }
            return absl::OkStatus();
          },
          [=](const Config& config) { return YamlQuoted(get(config)); }};
}

// The key and the member, from one spelling.
// clang-format off
#define FIELD(path) #path, [](auto& config) -> auto& { return config.path; }
// clang-format on

std::vector<Field> MakeTable() {
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  return {
      Text(FIELD(data_dir), "folder"),
      Text(FIELD(model), "name, path of a .gguf file, or nothing"),
      Integer(FIELD(threads.count), kPlain, {0, 1024}),
      Bool(FIELD(threads.pin)),
      Integer(FIELD(threads.spin_us), kPlain, {0, 1'000'000}),
      Integer(FIELD(device.arena_bytes), kBytes, {16 * kMiB, 16 * kTiB, true}),
      Choice(FIELD(device.isa), {"auto", "avx512", "avx2", "portable"}),
      Choice(FIELD(device.numerics), {"auto", "bf16", "int8"}),
      Integer(FIELD(host.store_bytes), kBytes, {0, 64 * kTiB}),
      Choice(FIELD(host.format), {"bf16", "int8", "int4"}),
      Integer(FIELD(host.view_bytes), kBytes, {0, 64 * kTiB}),
      Integer(FIELD(host.index_bytes), kBytes, {0, 64 * kTiB}),
      Bool(FIELD(ssd.enabled)),
      Text(FIELD(ssd.folder), "folder, or nothing"),
      Integer(FIELD(ssd.store_bytes), kBytes, {kMiB, 1024 * kTiB, true}),
      Choice(FIELD(ssd.encryption), {"on", "off"}),
      Choice(FIELD(ssd.format), {"bf16", "int8", "int4"}),
      Integer(FIELD(ssd.readers), kPlain, {1, 256}),
      Integer(FIELD(prefill.chunk_tokens), kTokens, {1, 64 * kKiB}),
      Integer(FIELD(prefill.step_ms), kPlain, {0, 60'000}),
      Real(FIELD(prefill.share), {0, 1, true}),
      Integer(FIELD(prefill.span_tokens), kTokens, {64, 1 << 20}),
      Integer(FIELD(generate.max_tokens), kTokens, {1, 16 * kMiB}),
      Real(FIELD(generate.temperature), {0, 10}),
      Integer(FIELD(generate.top_k), kPlain, {0, 1'000'000}),
      Real(FIELD(generate.top_p), {0, 1, true}),
      Real(FIELD(generate.min_p), {0, 1}),
      Real(FIELD(generate.repetition_penalty), {0, 10, true}),
      Integer(FIELD(generate.seed), kPlain, {0, kAny}),
      Integer(FIELD(limits.document_bytes), kBytes, {1, 64 * kGiB}),
      Integer(FIELD(limits.question_bytes), kBytes, {1, kGiB}),
      Integer(FIELD(limits.stop_strings), kPlain, {0, 1024}),
      Integer(FIELD(limits.stop_bytes), kBytes, {1, 64 * kKiB}),
      Integer(FIELD(limits.body_bytes), kBytes, {kKiB, kGiB}),
      Integer(FIELD(limits.header_bytes), kBytes, {kKiB, kMiB}),
      Integer(FIELD(limits.headers), kPlain, {8, 10'000}),
      Integer(FIELD(limits.header_seconds), kPlain, {1, 3600}),
      Integer(FIELD(limits.idle_seconds), kPlain, {1, 3600}),
      Integer(FIELD(limits.keep_alive_seconds), kPlain, {1, 3600}),
      Integer(FIELD(limits.json_depth), kPlain, {4, 256}),
      Integer(FIELD(limits.messages), kPlain, {1, 1'000'000}),
      Integer(FIELD(limits.choices), kPlain, {1, 64}),
      Integer(FIELD(limits.logprobs), kPlain, {0, 20}),
      Integer(FIELD(limits.connections), kPlain, {1, 100'000}),
      Integer(FIELD(limits.unsent_bytes), kBytes, {4 * kKiB, kGiB}),
      Integer(FIELD(limits.unsent_seconds), kPlain, {1, 3600}),
      Integer(FIELD(limits.running), kPlain, {1, 4096}),
      Integer(FIELD(limits.waiting), kPlain, {0, 4096}),
      Integer(FIELD(limits.waiting_tokens), kTokens, {0, kTiB}),
      Integer(FIELD(limits.waiting_seconds), kPlain, {1, 86'400}),
      Text(FIELD(server.host), "address"),
      Integer(FIELD(server.port), kPlain, {0, 65535}),
      Text(FIELD(server.admin_host), "address"),
      Integer(FIELD(server.admin_port), kPlain, {0, 65535}),
      Integer(FIELD(server.workers), kPlain, {1, 64}),
      Text(FIELD(server.api_keys_file), "path, or nothing"),
      Bool(FIELD(server.insecure)),
      Text(FIELD(server.tls_certificate), "path, or nothing"),
      Text(FIELD(server.tls_key), "path, or nothing"),
      Text(FIELD(server.model_name), "name, or nothing"),
      Integer(FIELD(server.drain_seconds), kPlain, {0, 86'400}),
      Text(FIELD(cluster.id), "name"),
      Text(FIELD(cluster.coordinator), "host:port or unix:PATH"),
      Text(FIELD(cluster.listen), "host:port or unix:PATH"),
      Integer(FIELD(cluster.lease_seconds), kPlain, {1, 3600}),
      Text(FIELD(cluster.tls_certificate), "path, or nothing"),
      Text(FIELD(cluster.tls_key), "path, or nothing"),
      Text(FIELD(cluster.tls_ca), "path, or nothing"),
      Choice(FIELD(log.level), {"trace", "debug", "info", "warn", "error", "off"}),
      Choice(FIELD(log.format), {"text", "json"}),
  };
}
#undef FIELD

}  // namespace

const std::vector<Field>& Table() {
  static const auto* const table = new std::vector<Field>(MakeTable());
  return *table;
}

const Field* FindField(std::string_view key) {
  const auto it =
      std::find_if(Table().begin(), Table().end(), [&](const Field& field) { return field.key == key; });
  return it == Table().end() ? nullptr : &*it;
}

std::string SectionOf(const std::string& key) {
  const size_t dot = key.find('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

}  // namespace palimpsest::config_internal
