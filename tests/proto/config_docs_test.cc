// docs/configuration.md against the table behind Config: the page cannot fall behind.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "proto/base/config.h"

namespace palimpsest {
namespace {

std::string Page() {
  std::ifstream file(PALIMPSEST_SOURCE_DIR "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// All cells of a row but the last, which says in words what the field is for.
std::string RowOf(const ConfigField& field) {
  const std::string value = field.default_value.empty() ? "" : fmt::format("`{}`", field.default_value);
  return fmt::format("| `{}` | `{}` | {} | {} | ", field.key, field.environment, field.accepts, value);
}

TEST(ConfigurationPageTest, HasARowForEveryField) {
  const std::string page = Page();
  ASSERT_FALSE(page.empty());
  for (const ConfigField& field : ConfigFields()) {
    const std::string row = "\n" + RowOf(field);
    const size_t at = page.find(row);
    EXPECT_NE(at, std::string::npos) << "docs/configuration.md needs the row" << row << "... |";
    if (at == std::string::npos) continue;
    const std::string meaning = page.substr(at + row.size(), page.find('\n', at + 1) - at - row.size());
    EXPECT_GT(meaning.size(), 10u) << field.key << ": no word on what it is for";
  }
}

TEST(ConfigurationPageTest, HasNoRowForAnythingElse) {
  const std::string page = Page();
  size_t rows = 0;
  for (size_t at = page.find("\n| `"); at != std::string::npos; at = page.find("\n| `", at + 1)) ++rows;
  EXPECT_EQ(rows, ConfigFields().size());
}

}  // namespace
}  // namespace palimpsest
