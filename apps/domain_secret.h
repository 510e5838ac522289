// What the names of blocks are kept apart by, for each tenant: a secret of the data folder, so that a
// document that was read is found again by the next process.
//
// Errors : of the key files, as DataKey::Load has them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/base/config.h"

namespace palimpsest {

// 32 bytes, made at the first call and read ever after; empty where nothing outlives the process.
absl::StatusOr<std::string> DomainSecret(const Config& config);

}  // namespace palimpsest
