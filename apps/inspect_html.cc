#include "apps/inspect_html.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <string_view>

#include "apps/inspect_page.h"
#include "apps/kept_code.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

constexpr size_t kStepsMax = 256;
constexpr size_t kStepBytesMax = 24 << 20;

// JSON is UTF-8; a path or a name may be any bytes.
std::string AsText(const std::string& text) {
  return CheckUtf8(text).ok() ? text : OneLine(text, text.size());
}

// A string, or numbers for bytes that are not UTF-8 on their own.
json::value TokenJson(std::string_view bytes) {
  if (CheckUtf8(bytes).ok()) return json::string(bytes);
  json::array numbers;
  for (const char byte : bytes) numbers.emplace_back(static_cast<uint8_t>(byte));
  return numbers;
}

json::array IdsJson(const std::vector<int32_t>& ids) { return json::array(ids.begin(), ids.end()); }

// `text` by id, and which ids are special, of all tokens there are.
void AddTokens(std::span<const Inspection> inspections, const Tokenizer& tokenizer, json::object* page) {
  (*page)["ids"] = IdsJson(inspections[0].ids);
  std::map<int32_t, std::string_view> texts;
  for (const int32_t id : inspections[0].ids) texts.emplace(id, tokenizer.TokenText(id));
  for (const Inspection& inspection : inspections) {
    for (const int32_t id : inspection.generated) texts.emplace(id, tokenizer.TokenText(id));
  }
  json::object by_id;
  json::array special;
  for (const auto& [id, text] : texts) {
    by_id[std::to_string(id)] = TokenJson(text);
    if (tokenizer.IsSpecial(id)) special.emplace_back(id);
  }
  (*page)["texts"] = std::move(by_id);
  (*page)["special"] = std::move(special);
}

struct Step {
  size_t cycle;  // which distillation, from 1; 0: the last compression of another policy
  const Outcome::Kept* kept;
};

// What there is to show, at most so many: the first, the last and evenly spaced ones between.
std::vector<Step> StepsOf(const Inspection& inspection, size_t most) {
  std::vector<Step> steps;
  const size_t cycles = inspection.cycles.size();
  const size_t drawn = std::min(cycles, most);
  for (size_t i = 0; i < drawn; ++i) {
    const size_t cycle = drawn == 1 ? cycles - 1 : i * (cycles - 1) / (drawn - 1);
    steps.push_back({cycle + 1, &inspection.cycles[cycle]});
  }
  const bool told = cycles > 0 && inspection.kept == inspection.cycles.back();
  if (!inspection.kept.empty() && !told) steps.push_back({0, &inspection.kept});
  return steps;
}

json::array StepsJson(const Inspection& inspection) {
  for (size_t most = kStepsMax;; most /= 2) {
    json::array array;
    size_t bytes = 0;
    KeptCoder coder;
    for (const Step& step : StepsOf(inspection, most)) {
      const std::string code = Base64(coder.Encode(*step.kept));
      bytes += code.size();
      // A distillation sees what was read until then, any other compression all of the prompt.
      const int64_t read =
          step.cycle > 0 ? coder.read() : std::max(coder.read(), static_cast<int64_t>(inspection.ids.size()));
      array.push_back(json::object{{"cycle", step.cycle}, {"read", read}, {"kept", code}});
    }
    if (bytes <= kStepBytesMax || most == 1) return array;
  }
}

// What one policy made of the text.
json::object SideJson(const Inspection& inspection) {
  return {{"policy", inspection.policy.empty() ? "full" : AsText(inspection.policy)},
          {"cycles", inspection.cycles.size()},
          {"resident_tokens", inspection.resident_tokens},
          {"generated", IdsJson(inspection.generated)},
          {"steps", StepsJson(inspection)}};
}

}  // namespace

std::string InspectionHtml(std::span<const Inspection> inspections, const InspectPage& about,
                           const Tokenizer& tokenizer) {
  json::object page = SideJson(inspections[0]);
  page["model"] = AsText(about.model);
  page["command"] = AsText(about.command);
  page["layers"] = about.layers;
  page["kv_heads"] = about.kv_heads;
  AddTokens(inspections, tokenizer, &page);
  if (inspections.size() > 1) page["other"] = SideJson(inspections[1]);
  return FillPage(kInspectPage, json::serialize(page));
}

}  // namespace palimpsest
