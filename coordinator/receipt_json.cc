#include "coordinator/receipt_json.h"

#include <boost/json.hpp>

namespace palimpsest {
namespace {

namespace json = boost::json;

json::object RecalledJson(const proto::Recalled& recalled) {
  return {{"slices", recalled.slices()}, {"bytes", recalled.bytes()}};
}

json::object SecondsJson(const proto::Receipt::Seconds& seconds) {
  return {{"queue", seconds.queue()},   {"load", seconds.load()},     {"prefill", seconds.prefill()},
          {"recall", seconds.recall()}, {"decode", seconds.decode()}, {"first_token", seconds.first_token()}};
}

}  // namespace

boost::json::object ReceiptJson(const proto::Receipt& receipt) {
  json::object object;
  object["policy"] = receipt.policy();
  object["recall"] = receipt.recall();
  object["prefill"] = receipt.prefill();
  object["prefill_reason"] = receipt.prefill_reason();
  object["question"] = receipt.question();
  object["prompt_tokens"] = receipt.prompt_tokens();
  object["resident_tokens"] = receipt.resident_tokens();
  object["device_bytes"] = json::object{{"resident", receipt.device_bytes().resident()},
                                        {"digests", receipt.device_bytes().digests()},
                                        {"peak", receipt.device_bytes().peak()}};
  object["spilled_bytes"] =
      json::object{{"host", receipt.spilled_bytes().host()}, {"ssd", receipt.spilled_bytes().ssd()}};
  object["recalled"] = json::object{{"device", RecalledJson(receipt.recalled().device())},
                                    {"host", RecalledJson(receipt.recalled().host())},
                                    {"ssd", RecalledJson(receipt.recalled().ssd())},
                                    {"remote", RecalledJson(receipt.recalled().remote())}};
  object["recomputed_tokens"] = receipt.recomputed_tokens();
  object["degraded"] = json::array(receipt.degraded().begin(), receipt.degraded().end());
  object["seconds"] = SecondsJson(receipt.seconds());
  object["tokens_per_second"] = json::object{{"prefill", receipt.tokens_per_second().prefill()},
                                             {"decode", receipt.tokens_per_second().decode()}};
  object["workers"] = receipt.workers();
  return object;
}

}  // namespace palimpsest
