#include "apps/domain_secret.h"

#include <memory>

#include "proto/base/status.h"
#include "storage/data_key.h"

namespace palimpsest {

absl::StatusOr<std::string> DomainSecret(const Config& config) {
  if (!config.ssd.enabled) return std::string();
  const std::string keys = config.data_dir + "/keys";
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<DataKey> key,
                              DataKey::Load(keys + "/tier.key", keys + "/domains.key"));
  const Hash256 secret = key->Derive("cache domains");
  return std::string(reinterpret_cast<const char*>(secret.bytes.data()), secret.bytes.size());
}

}  // namespace palimpsest
