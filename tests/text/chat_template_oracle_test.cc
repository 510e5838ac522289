// Our templates against Python's jinja2, text for text: the checked-in table, the table made anew, and random
// snippets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"
#include "text/chat_template.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Text(const json::value& value) { return std::string(value.as_string()); }

std::vector<ChatMessage> Messages(const json::value& list) {
  std::vector<ChatMessage> messages;
  for (const json::value& message : list.as_array()) {
    messages.push_back({Text(message.at("role")), Text(message.at("content"))});
  }
  return messages;
}

absl::StatusOr<std::string> RenderCase(const json::value& table, const json::value& c) {
  ChatTemplate::Options options;
  options.add_generation_prompt = c.at("generation").as_bool();
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = std::chrono::system_clock::from_time_t(table.at("now").as_int64());
  const json::value& source = table.at("templates").as_array().at(c.at("template").as_int64());
  auto parsed = ChatTemplate::Parse(Text(source));
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(Messages(table.at("messages").at(Text(c.at("messages")))), options);
}

// Whether we say that we do not support what Python does, rather than something else than Python.
bool Unsupported(const absl::Status& status) {
  const std::string message = Message(status);
  return message.find("not supported") != std::string::npos ||
         message.find("does not fit") != std::string::npos;
}

// Compares every case; returns how many we refuse as unsupported though Python renders them.
int CompareAll(const std::string& path) {
  const json::value table = json::parse(ReadFile(path));
  int unsupported = 0;
  for (const json::value& c : table.at("cases").as_array()) {
    const json::value& source = table.at("templates").as_array().at(c.at("template").as_int64());
    SCOPED_TRACE(Text(c.at("name")) + "\n" + Text(source));
    const absl::StatusOr<std::string> ours = RenderCase(table, c);
    if (const json::value* error = c.as_object().if_contains("error")) {
      EXPECT_FALSE(ours.ok()) << "Python fails, we render: " << ours.value_or("");
      EXPECT_THAT(Message(ours.status()), ::testing::HasSubstr(Text(*error)));
    } else if (ours.ok()) {
      EXPECT_EQ(*ours, Text(c.at("output")));
    } else if (Unsupported(ours.status())) {
      ++unsupported;
    } else {
      ADD_FAILURE() << Message(ours.status()) << "\nPython renders: " << Text(c.at("output"));
    }
  }
  return unsupported;
}

const std::string kTable = PALIMPSEST_SOURCE_DIR "/tests/text/data/chat_template.json";
const std::string kScript = PALIMPSEST_SOURCE_DIR "/tests/testing/chat_template_oracle.py";

TEST(ChatTemplateOracle, EveryTemplateOfTheTableRendersAsInPython) { EXPECT_EQ(CompareAll(kTable), 0); }

class ChatTemplatePython : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* python = std::getenv("PALIMPSEST_TEST_PYTHON");
    if (python == nullptr)
      GTEST_SKIP() << "PALIMPSEST_TEST_PYTHON is unset: set it to a python that has jinja2";
    python_ = python;
  }
  std::string Run(const std::string& arguments) {
    const std::string out = folder_.path() + "/out.json";
    const std::string command = python_ + " -B " + kScript + " " + out + " " + arguments;
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return out;
  }

  std::string python_;
  TemporaryFolder folder_;
};

TEST_F(ChatTemplatePython, TheCheckedInTableIsWhatPythonSaysNow) {
  EXPECT_TRUE(ReadFile(Run("")) == ReadFile(kTable)) << "make it anew: python3 " << kScript << " " << kTable;
}

TEST_F(ChatTemplatePython, RandomSnippetsRenderAsInPython) {
  constexpr int kSnippets = 1000;
  const char* seed = std::getenv("PALIMPSEST_TEST_SEED");  // to look further by hand
  const std::string path =
      Run("--random " + std::string(seed == nullptr ? "1" : seed) + " " + std::to_string(kSnippets));
  // A tenth at most may be refused as unsupported; the rest is equal or an error in both.
  EXPECT_LT(CompareAll(path), kSnippets / 10);
}

}  // namespace
}  // namespace palimpsest
