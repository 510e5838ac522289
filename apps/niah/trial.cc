#include "apps/niah/trial.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>

#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/types.pb.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

template <typename Trial, typename Visit>
void VisitFields(Trial& trial, Visit&& visit) {
  visit("task", trial.task);
  visit("length", trial.length);
  visit("depth", trial.depth_percent);
  visit("policy", trial.policy);
  visit("recall", trial.recall);
  visit("visible", trial.question_visible);
  visit("turn", trial.turn);
  visit("seed", trial.seed);
  visit("answer", trial.answer);
  visit("failed", trial.failed);
  visit("score", trial.score);
  visit("prompt_tokens", trial.prompt_tokens);
  visit("output_tokens", trial.output_tokens);
  visit("measured", trial.measured);
  visit("resident_tokens", trial.resident_tokens);
  visit("kept_all", trial.kept_all);
  visit("compared", trial.compared);
  visit("as_full", trial.as_full);
  visit("degraded", trial.degraded);
  visit("resident_bytes", trial.resident_bytes);
  visit("peak_bytes", trial.peak_bytes);
  visit("recalled_host", trial.recalled_host);
  visit("recalled_ssd", trial.recalled_ssd);
  visit("needle_seen", trial.needle_seen);
  visit("first_token_seconds", trial.first_token_seconds);
  visit("decode_seconds", trial.decode_seconds);
  visit("load_seconds", trial.load_seconds);
  visit("prefill_seconds", trial.prefill_seconds);
  visit("recall_seconds", trial.recall_seconds);
  visit("spilled_host_bytes", trial.spilled_host_bytes);
  visit("spilled_ssd_bytes", trial.spilled_ssd_bytes);
  visit("recalled_host_bytes", trial.recalled_host_bytes);
  visit("recalled_ssd_bytes", trial.recalled_ssd_bytes);
  visit("cached_tokens", trial.cached_tokens);
  visit("recomputed_tokens", trial.recomputed_tokens);
  visit("read_tokens", trial.read_tokens);
  visit("read_computed_tokens", trial.read_computed_tokens);
  visit("read_peak_bytes", trial.read_peak_bytes);
}

struct Writer {
  json::object object;
  // An answer may end in the middle of a character: its bytes, then.
  void operator()(const char* key, const std::string& value) {
    if (CheckUtf8(value).ok()) {
      object.emplace(key, value);
    } else {
      json::array bytes;
      for (const char byte : value) bytes.emplace_back(static_cast<uint8_t>(byte));
      object.emplace(key, std::move(bytes));
    }
  }
  void operator()(const char* key, int64_t value) { object.emplace(key, value); }
  void operator()(const char* key, uint64_t value) { object.emplace(key, value); }
  void operator()(const char* key, bool value) { object.emplace(key, value); }
  void operator()(const char* key, double value) { object.emplace(key, fmt::format("{}", value)); }
};

struct Reader {
  const json::object& object;
  absl::Status status;

  void operator()(const char* key, std::string& value) {
    if (const json::value* const found = Get(key); found != nullptr && found->is_string()) {
      value = std::string(found->get_string());
    } else if (found != nullptr && found->is_array()) {
      value.clear();
      for (const json::value& byte : found->get_array()) {
        json::error_code error;
        value += static_cast<char>(byte.to_number<uint8_t>(error));
        if (error) Bad(key);
      }
    } else {
      Bad(key);
    }
  }
  void operator()(const char* key, int64_t& value) { Number(key, value); }
  void operator()(const char* key, uint64_t& value) { Number(key, value); }
  void operator()(const char* key, bool& value) {
    if (const json::value* const found = Get(key); found != nullptr && found->is_bool()) {
      value = found->get_bool();
    } else {
      Bad(key);
    }
  }
  void operator()(const char* key, double& value) {
    std::string text;
    (*this)(key, text);
    const absl::StatusOr<double> number = ParseReal(text);
    number.ok() ? void(value = *number) : Bad(key);
  }

 private:
  const json::value* Get(const char* key) const { return object.if_contains(key); }
  template <typename T>
  void Number(const char* key, T& value) {
    json::error_code error;
    const json::value* const found = Get(key);
    const T number = found == nullptr ? T{} : found->to_number<T>(error);
    found == nullptr || error ? Bad(key) : void(value = number);
  }
  void Bad(const char* key) {
    if (status.ok()) status = InvalidArgument("field {} is missing or of another kind", key);
  }
};

}  // namespace

NiahTrial TrialOf(std::string text, const proto::Usage& usage, const proto::Receipt& receipt) {
  NiahTrial trial;
  trial.answer = std::move(text);
  trial.prompt_tokens = usage.prompt_tokens();
  trial.output_tokens = usage.completion_tokens();
  trial.resident_tokens = receipt.resident_tokens();
  trial.kept_all = trial.resident_tokens >= static_cast<double>(trial.prompt_tokens);
  trial.resident_bytes = receipt.device_bytes().resident();
  trial.peak_bytes = receipt.device_bytes().peak();
  trial.degraded = receipt.degraded_size() > 0;
  trial.recalled_host = receipt.recalled().host().slices();
  trial.recalled_ssd = receipt.recalled().ssd().slices();
  trial.recalled_host_bytes = receipt.recalled().host().bytes();
  trial.recalled_ssd_bytes = receipt.recalled().ssd().bytes();
  trial.spilled_host_bytes = receipt.spilled_bytes().host();
  trial.spilled_ssd_bytes = receipt.spilled_bytes().ssd();
  trial.cached_tokens = usage.cached_tokens();
  trial.recomputed_tokens = receipt.recomputed_tokens();
  trial.first_token_seconds = receipt.seconds().first_token();
  trial.decode_seconds = receipt.seconds().decode();
  trial.load_seconds = receipt.seconds().load();
  trial.prefill_seconds = receipt.seconds().prefill();
  trial.recall_seconds = receipt.seconds().recall();
  return trial;
}

json::object TrialToJson(const NiahTrial& trial) {
  Writer writer;
  VisitFields(trial, writer);
  return std::move(writer.object);
}

absl::StatusOr<NiahTrial> TrialFromJson(const json::object& object) {
  NiahTrial trial;
  Reader reader{.object = object, .status = absl::OkStatus()};
  VisitFields(trial, reader);
  PALIMPSEST_RETURN_IF_ERROR(reader.status);
  return trial;
}

}  // namespace palimpsest
