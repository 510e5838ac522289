// The receipt of an answer as JSON; the same object in `ask --json` and over HTTP. Field names are a
// contract.
#pragma once

#include "proto/types.pb.h"

namespace boost::json {
class object;
}

namespace palimpsest {

boost::json::object ReceiptJson(const proto::Receipt& receipt);

}  // namespace palimpsest
