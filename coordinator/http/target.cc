#include "coordinator/http/target.h"

#include <algorithm>
#include <array>
#include <optional>
#include <random>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

constexpr size_t kQueryKeysMax = 64;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return std::nullopt;
    decoded.push_back(c);
  }
  return decoded;
}

absl::Status DecodeQuery(std::string_view text, std::map<std::string, std::string>& query) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto key = PercentDecode(pair.substr(0, equals), true);
    const auto value = PercentDecode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!key || !value) return InvalidArgument("the query is not valid percent-encoding");
    if (!query.emplace(*key, *value).second) {
      return InvalidArgument("the query has the key {} twice; send it once", Quoted(*key));
    }
    if (query.size() > kQueryKeysMax) {
      return InvalidArgument("the query has more than {} keys", kQueryKeysMax);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeTarget(std::string_view target, std::string& path,
                          std::map<std::string, std::string>& query) {
  path.clear();
  query.clear();
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    target.remove_prefix(scheme.size());
    target.remove_prefix(std::min(target.find_first_of("/?"), target.size()));
    if (!target.starts_with('/')) return InvalidArgument("the address has no path");
    break;
  }
  if (target == "*") {  // OPTIONS *
    path = "*";
    return absl::OkStatus();
  }
  if (!target.starts_with('/')) return InvalidArgument("the path does not begin with /");
  const size_t mark = std::min(target.find('?'), target.size());
  auto decoded = PercentDecode(target.substr(0, mark), false);
  if (!decoded) return InvalidArgument("the path is not valid percent-encoding");
  path = *std::move(decoded);
  return mark == target.size() ? absl::OkStatus() : DecodeQuery(target.substr(mark + 1), query);
}

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
  });
}

std::string NewRequestId() {
  thread_local std::random_device device;
  return fmt::format("req-{:08x}{:08x}{:08x}", device(), device(), device());
}

}  // namespace palimpsest::http
