// A receipt goes through JSON and back, whole; what is no receipt becomes an empty one.
#include "coordinator/receipt_json.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace palimpsest {
namespace {

namespace json = boost::json;

proto::Receipt FullReceipt() {
  proto::Receipt receipt;
  receipt.set_policy("snapkv:budget=1024");
  receipt.set_prefill("exact");
  receipt.set_prompt_tokens(int64_t{1} << 40);
  receipt.set_resident_tokens(0.1);
  receipt.set_resident_tokens_end(2.5);
  receipt.set_host_format("int8");
  receipt.mutable_device_bytes()->set_peak(7);
  receipt.mutable_recalled()->mutable_ssd()->set_slices(3);
  receipt.add_degraded("ssd is full");
  receipt.add_degraded("worker lost");
  receipt.mutable_seconds()->set_first_token(0.125);
  receipt.set_workers(2);
  return receipt;
}

TEST(ReceiptJsonTest, GoesThroughJsonAndBackWhole) {
  const proto::Receipt receipt = FullReceipt();
  const proto::Receipt back = ReceiptFromJson(json::parse(json::serialize(ReceiptJson(receipt))));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equivalent(receipt, back)) << back.DebugString();
}

TEST(ReceiptJsonTest, EmptyReceiptHasEveryField) {
  const json::object object = ReceiptJson({});
  EXPECT_EQ(object.size(), 21u);
  EXPECT_EQ(object.at("recalled").at("remote").at("bytes").as_int64(), 0);
  EXPECT_TRUE(object.at("degraded").as_array().empty());
  EXPECT_EQ(object.at("policy").as_string(), "");
}

TEST(ReceiptJsonTest, WhatIsOfAnotherTypeIsLeftOut) {
  for (const char* text :
       {"null", "[]", "7", R"({"policy": 3, "prompt_tokens": "x", "seconds": [], "degraded": [1]})",
        R"({"prompt_tokens": 1e300, "workers": 0.5, "unknown": {}})"}) {
    const proto::Receipt receipt = ReceiptFromJson(json::parse(text));
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equivalent(receipt, proto::Receipt())) << text;
  }
}

}  // namespace
}  // namespace palimpsest
