// The receipt of an answer as JSON; the same object in `ask --json` and over HTTP. Field names are a
// contract: they are those of the message, so both directions walk its description and none can forget a
// field.
#pragma once

#include "proto/types.pb.h"

namespace boost::json {
class object;
class value;
}  // namespace boost::json

namespace palimpsest {

// Every field, those at their defaults too.
boost::json::object ReceiptJson(const proto::Receipt& receipt);
// What is missing, unknown or of another type is left at its default.
proto::Receipt ReceiptFromJson(const boost::json::value& value);

}  // namespace palimpsest
