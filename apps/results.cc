#include "apps/results.h"

#include <algorithm>
#include <boost/json.hpp>
#include <ctime>

#include "coordinator/receipt_json.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

// A path may be any bytes, JSON may not.
std::string PathText(const std::string& path) {
  return CheckUtf8(path).ok() ? path : OneLine(path, path.size());
}

json::object InfoJson(const DocumentInfo& info) {
  return {{"id", info.id},
          {"path", PathText(info.path)},
          {"bytes", info.bytes},
          {"tokens", info.tokens},
          {"created", FormatTime(info.created_unix_ms)},
          {"content_hash", info.content_hash}};
}

double Rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace

std::string AnswerJson(const Answer& answer) {
  json::object object;
  object["answer"] = answer.text;
  object["finish_reason"] = answer.finish_reason;
  object["documents"] = json::array(answer.documents.begin(), answer.documents.end());
  object["usage"] =
      json::object{{"prompt_tokens", answer.usage.prompt_tokens()},
                   {"completion_tokens", answer.usage.completion_tokens()},
                   {"prompt_tokens_details", json::object{{"cached_tokens", answer.usage.cached_tokens()}}}};
  object["receipt"] = ReceiptJson(answer.receipt);
  return PrintJson(object);
}

std::string ReceiptText(const Answer& answer) {
  const proto::Receipt& receipt = answer.receipt;
  const proto::Usage& usage = answer.usage;
  const int64_t computed = usage.prompt_tokens() - usage.cached_tokens();
  std::string text =
      fmt::format("prompt   {} tokens, {} from cache", usage.prompt_tokens(), usage.cached_tokens());
  if (computed > 0) {
    text += fmt::format(", {} computed in {:.2f} s ({:.0f}/s)", computed, receipt.seconds().prefill(),
                        receipt.tokens_per_second().prefill());
    if (receipt.seconds().compress() > 0) {
      text += fmt::format(", {:.2f} s of it to compress", receipt.seconds().compress());
    }
  }
  text +=
      fmt::format("\nanswer   {} tokens in {:.2f} s", usage.completion_tokens(), receipt.seconds().decode());
  if (receipt.tokens_per_second().decode() > 0) {
    text += fmt::format(" ({:.0f}/s)", receipt.tokens_per_second().decode());
  }
  text += fmt::format(", first after {:.2f} s{}\n", receipt.seconds().first_token(),
                      answer.finish_reason == "length" ? "; cut off, --max-tokens allows more" : "");
  text += fmt::format("memory   {} on the device, {} at most; {} written to host memory\n",
                      ApproximateBytes(static_cast<double>(receipt.device_bytes().resident())),
                      ApproximateBytes(static_cast<double>(receipt.device_bytes().peak())),
                      ApproximateBytes(static_cast<double>(receipt.spilled_bytes().host())));
  text += fmt::format("how      prefill {} ({}), policy {}, recall {}\n", receipt.prefill(),
                      receipt.prefill_reason(), receipt.policy(), receipt.recall());
  if (receipt.recomputed_tokens() > 0) {
    text += fmt::format(
        "again    {} tokens of known documents were computed again: no tier had them, or the policy asks "
        "every "
        "token\n",
        receipt.recomputed_tokens());
  }
  for (const std::string& degraded : receipt.degraded()) text += fmt::format("less     {}\n", degraded);
  return text;
}

std::string IngestJson(std::span<const IngestedDocument> documents, std::span<const FailedDocument> failed) {
  json::object object;
  json::array array;
  for (const IngestedDocument& document : documents) {
    array.push_back(
        json::object{{"id", document.info.id},
                     {"path", PathText(document.path)},
                     {"bytes", document.info.bytes},
                     {"tokens", document.info.tokens},
                     {"blocks", document.blocks},
                     {"tier_bytes", json::object{{"host", document.host_bytes}, {"ssd", document.ssd_bytes}}},
                     {"seconds", document.seconds},
                     {"tokens_per_second", Rate(document.info.tokens, document.seconds)},
                     {"already_known", document.already_known}});
  }
  object["documents"] = std::move(array);
  if (!failed.empty()) {
    json::array errors;
    for (const FailedDocument& one : failed) {
      errors.push_back(json::object{{"path", PathText(one.path)}, {"error", one.error}});
    }
    object["failed"] = std::move(errors);
  }
  return PrintJson(object);
}

std::string IngestText(const IngestedDocument& document) {
  return fmt::format("{}  {}  {} tokens, {} in {:.1f} s ({:.0f} tokens/s){}\n", document.info.id,
                     OneLine(document.path, 1024), document.info.tokens,
                     ApproximateBytes(static_cast<double>(document.info.bytes)), document.seconds,
                     Rate(document.info.tokens, document.seconds),
                     document.already_known ? ", already known" : "");
}

std::string DocumentsJson(std::span<const DocumentInfo> documents) {
  json::array array;
  for (const DocumentInfo& info : documents) array.push_back(InfoJson(info));
  return PrintJson(json::object{{"documents", std::move(array)}});
}

std::string DocumentJson(const Document& document) {
  json::object object = InfoJson(document.info);
  object["text"] = document.text;
  return PrintJson(object);
}

std::string DocumentsText(std::span<const DocumentInfo> documents) {
  if (documents.empty()) return "no documents; `palimpsest ingest PATH` adds one\n";
  std::string text;
  for (const DocumentInfo& info : documents) {
    text += fmt::format("{}  {:>9} tokens  {:>9}  {}  {}\n", info.id, info.tokens,
                        ApproximateBytes(static_cast<double>(info.bytes)), FormatTime(info.created_unix_ms),
                        OneLine(info.path, 1024));
  }
  return text;
}

std::string DocumentText(const Document& document) {
  const DocumentInfo& info = document.info;
  return fmt::format("id       {}\npath     {}\nbytes    {}\ntokens   {}\ncreated  {}\nsha256   {}\n\n{}{}",
                     info.id, OneLine(info.path, 1024), info.bytes, info.tokens,
                     FormatTime(info.created_unix_ms), info.content_hash, document.text,
                     document.text.ends_with('\n') ? "" : "\n");
}

std::string DeletedJson(const DocumentId& id) { return PrintJson(json::object{{"deleted", id}}); }

namespace {

json::array KeptJson(const Outcome::Kept& kept) {
  json::array layers;
  for (const auto& heads : kept) {
    json::array layer;
    for (const auto& tokens : heads) layer.emplace_back(json::array(tokens.begin(), tokens.end()));
    layers.emplace_back(std::move(layer));
  }
  return layers;
}

AttentionShare MeanOf(std::span<const AttentionShare> layers) {
  AttentionShare mean;
  const double count = static_cast<double>(std::max<size_t>(1, layers.size()));
  for (const AttentionShare& layer : layers) {
    mean.resident += layer.resident / count;
    mean.seen += layer.seen / count;
    mean.error += layer.error / count;
  }
  return mean;
}

json::object AuditJson(const Outcome::Audit& audit, std::string_view recall) {
  const auto share = [](const AttentionShare& of) {
    return json::object{{"resident", of.resident}, {"seen", of.seen}, {"error", of.error}};
  };
  json::array layers;
  for (const AttentionShare& layer : audit.layers) layers.push_back(share(layer));
  return {{"tokens", audit.tokens},
          {"recall", recall},
          {"mean", share(MeanOf(audit.layers))},
          {"layers", std::move(layers)}};
}

std::string AuditText(const Outcome::Audit& audit, std::string_view recall) {
  std::string text = fmt::format(
      "attention of the last {} tokens, recall {}\n    share on what stays, with what comes back; error of "
      "the output\n",
      audit.tokens, recall);
  const auto line = [&](std::string_view name, const AttentionShare& of) {
    text += fmt::format("{:>9} {:9.4f} {:9.4f} {:9.4f}\n", name, of.resident, of.seen, of.error);
  };
  for (size_t layer = 0; layer < audit.layers.size(); ++layer)
    line(fmt::format("layer {}", layer), audit.layers[layer]);
  line("mean", MeanOf(audit.layers));
  return text;
}

// Of one policy: all but the text's own ids.
json::object PolicyInspectionJson(const Inspection& inspection) {
  json::array top;
  for (const TopToken& token : inspection.top) {
    top.push_back(json::array{token.id, static_cast<double>(token.logit), token.log_probability});
  }
  json::object all{{"top", std::move(top)}};
  if (!inspection.policy.empty()) all["policy"] = inspection.policy;
  if (!inspection.kept.empty()) all["kept"] = KeptJson(inspection.kept);
  if (!inspection.cycles.empty()) {
    json::array cycles;
    for (const Outcome::Kept& kept : inspection.cycles) cycles.push_back(KeptJson(kept));
    all["cycles"] = std::move(cycles);
  }
  if (inspection.audit.has_value()) all["audit"] = AuditJson(*inspection.audit, inspection.recall);
  all["generated"] = json::array(inspection.generated.begin(), inspection.generated.end());
  return all;
}

std::string PolicyInspectionText(const Inspection& inspection, const Tokenizer& tokenizer) {
  const auto token_text = [&](int32_t id) {
    return Quoted(tokenizer.Decode(std::span(&id, 1), /*with_special=*/true));
  };
  std::string text;
  if (!inspection.top.empty()) text += "the likeliest next ones:\n    id      logit  log-prob  text\n";
  for (const TopToken& token : inspection.top) {
    text += fmt::format("{:6} {:10.4f} {:9.4f}  {}\n", token.id, token.logit, token.log_probability,
                        token_text(token.id));
  }
  if (!inspection.policy.empty()) {
    text += fmt::format(
        "policy: {}; {:.1f} of {} tokens stay, as the mean of layers and KV heads{}\n", inspection.policy,
        inspection.resident_tokens, inspection.ids.size(),
        inspection.cycles.empty() ? "" : fmt::format(", after {} cycles", inspection.cycles.size()));
  }
  if (inspection.audit.has_value()) text += AuditText(*inspection.audit, inspection.recall);
  if (inspection.generated.empty()) return text;
  return text + fmt::format("generated: {}\n", tokenizer.Decode(inspection.generated, /*with_special=*/true));
}

}  // namespace

std::string InspectionJson(std::span<const Inspection> inspections) {
  const std::vector<int32_t>& ids = inspections[0].ids;
  json::object all{{"ids", json::array(ids.begin(), ids.end())}};
  for (auto& [name, value] : PolicyInspectionJson(inspections[0])) all[name] = std::move(value);
  if (inspections.size() > 1) all["other"] = PolicyInspectionJson(inspections[1]);
  return PrintJson(all);
}

std::string InspectionText(std::span<const Inspection> inspections, const Tokenizer& tokenizer) {
  std::string text = fmt::format("{} tokens\n", inspections[0].ids.size());
  for (const Inspection& inspection : inspections) text += PolicyInspectionText(inspection, tokenizer);
  return text;
}

std::string FormatTime(int64_t unix_ms) {
  const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return "";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace palimpsest
