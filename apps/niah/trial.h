// One answer to one question of a sample: how right it is, and what it cost.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace boost::json {
class object;
}

namespace palimpsest {

namespace proto {
class Receipt;
class Usage;
}  // namespace proto

struct NiahTrial {
  std::string task;
  int64_t length = 0;        // tokens asked for, with question and answer
  double depth_percent = 0;  // below 0: the task has none
  std::string policy, recall = "none";
  bool question_visible = false;
  int64_t turn = 1;
  uint64_t seed = 0;

  std::string answer;
  std::string failed;  // why there is no answer; such a trial counts nowhere else
  double score = 0;    // 0 to 1
  int64_t prompt_tokens = 0, output_tokens = 0;
  bool measured = true;        // false: by an endpoint, which tells no bytes
  double resident_tokens = 0;  // when decoding began: mean over layers and KV heads
  bool kept_all = false;       // no token of the prompt was dropped: nothing was compressed
  bool compared = false;       // full was asked, too
  bool as_full = false;        // it gave the same words, to this question and those before it
  bool degraded = false;       // the receipt names something that was not done as asked
  int64_t resident_bytes = 0, peak_bytes = 0;
  int64_t recalled_host = 0, recalled_ssd = 0;  // slices of recall that came from there
  double needle_seen = -1;  // share of the needle that the answer's first token could see; -1: not known
  double first_token_seconds = 0, decode_seconds = 0;

  // The rest of the receipt, for sums.
  double load_seconds = 0, prefill_seconds = 0, recall_seconds = 0;
  int64_t spilled_host_bytes = 0, spilled_ssd_bytes = 0;
  int64_t recalled_host_bytes = 0, recalled_ssd_bytes = 0;
  int64_t cached_tokens = 0, recomputed_tokens = 0;

  // Of the first answer to a text: what reading it took before, tokens of it and those that were computed,
  // and the most bytes on the device.
  int64_t read_tokens = 0, read_computed_tokens = 0, read_peak_bytes = 0;
};

// What an engine of ours says of an answer.
NiahTrial TrialOf(std::string text, const proto::Usage& usage, const proto::Receipt& receipt);

// Real numbers travel as text, so that they come back to the last bit.
boost::json::object TrialToJson(const NiahTrial& trial);
// InvalidArgument: a field is missing or of another kind.
absl::StatusOr<NiahTrial> TrialFromJson(const boost::json::object& object);

}  // namespace palimpsest
