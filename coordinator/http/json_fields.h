// Typed fields of a JSON object from outside: each is taken by name, with its range, and what is left over is
// an error. Every error names the field by its path.
//
//   JsonFields fields(object, "messages[2]");
//   PALIMPSEST_ASSIGN_OR_RETURN(const auto role, fields.Text("role", 1, 32));
//   PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
//
// A field that is null counts as absent, as clients mean it. Views are of the object, which outlives the
// reader.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace boost::json {
class array;
class object;
class value;
}  // namespace boost::json

namespace palimpsest::http {

// `body` as a JSON object. InvalidArgument: no JSON (where), deeper than `depth`, not UTF-8, no object.
absl::StatusOr<boost::json::value> ParseJsonBody(std::string_view body, int64_t depth);

class JsonFields {
 public:
  // `path` is that of the object, empty for the body itself.
  JsonFields(const boost::json::object& object, std::string path);

  std::string Path(std::string_view name) const;
  // Null if absent; takes any type.
  const boost::json::value* Take(std::string_view name);
  absl::StatusOr<std::optional<bool>> Bool(std::string_view name);
  absl::StatusOr<std::optional<int64_t>> Integer(std::string_view name, int64_t low, int64_t high);
  absl::StatusOr<std::optional<double>> Real(std::string_view name, double low, double high);
  absl::StatusOr<std::optional<std::string_view>> Text(std::string_view name, int64_t characters_min,
                                                       int64_t characters_max);
  absl::StatusOr<const boost::json::object*> Object(std::string_view name);  // null: absent
  absl::StatusOr<const boost::json::array*> Array(std::string_view name);

  // These change nothing here: taken whatever they hold.
  void Ignore(std::span<const std::string_view> names);
  // This would change the answer, and is not there: only null, or what means the same, is taken.
  // `same` is JSON: "0", "[]", "{}", "\"auto\"".
  absl::Status Unsupported(std::string_view name, std::span<const std::string_view> same = {});
  // InvalidArgument with code "unknown_parameter" for a field that was not taken, naming the nearest known
  // one.
  absl::Status NoOthers() const;

 private:
  absl::Status Wrong(std::string_view name, std::string_view expected, const boost::json::value& got) const;

  const boost::json::object& object_;
  const std::string path_;
  std::vector<std::string> known_;  // asked for
};

// Token ids: whole numbers of 32 bits from 0.
absl::StatusOr<std::vector<int32_t>> TokenIds(const boost::json::array& array, std::string_view path);
// "a string", "a number", ...: never the value itself.
std::string_view KindOf(const boost::json::value& value);

}  // namespace palimpsest::http
