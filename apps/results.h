// What commands answer, as JSON and as text for people. Field names of the JSON are a contract.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/client.h"
#include "coordinator/catalog.h"
#include "worker/engine.h"

namespace palimpsest {

std::string AnswerJson(const Answer& answer);
// What the answer cost, in a few lines, each ended by a newline.
std::string ReceiptText(const Answer& answer);

struct FailedDocument {
  std::string path;
  std::string error;
};
std::string IngestJson(std::span<const IngestedDocument> documents, std::span<const FailedDocument> failed);
std::string IngestText(const IngestedDocument& document);

std::string DocumentsJson(std::span<const DocumentInfo> documents);
std::string DocumentJson(const Document& document);
std::string DocumentsText(std::span<const DocumentInfo> documents);
// A few lines about it, an empty one, its text.
std::string DocumentText(const Document& document);
std::string DeletedJson(const DocumentId& id);

struct Inspection {
  std::vector<int32_t> ids;
  std::vector<TopToken> top;
  std::vector<int32_t> generated;
  std::string policy;  // with all its parameters; empty for full
  Outcome::Kept kept;  // empty: nothing was dropped
  std::vector<Outcome::Kept> cycles;
  double resident_tokens = 0;
  std::optional<Outcome::Audit> audit;
  std::string recall = "none";  // of the audit
};
// Of one policy, or of two that ran the same ids: the second is the field "other". Field names are a
// contract.
std::string InspectionJson(std::span<const Inspection> inspections);
std::string InspectionText(std::span<const Inspection> inspections, const Tokenizer& tokenizer);

// "2026-01-31 12:00:00 UTC"; empty for what is no time.
std::string FormatTime(int64_t unix_ms);

}  // namespace palimpsest
