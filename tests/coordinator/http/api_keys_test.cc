#include "coordinator/http/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "coordinator/http/api_keys_file.h"
#include "proto/base/ids.h"
#include "proto/base/log.h"
#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Entry(const std::string& name, const std::string& key, const std::string& more = "") {
  return fmt::format("  - name: {}\n    sha256: {}\n{}", name, Sha256(key).ToHex(), more);
}

class Keys : public ::testing::Test {
 protected:
  void Write(const std::string& yaml) {
    // Another file under the same name: a new inode, so that no resolution of times hides it.
    std::ofstream(file + ".new") << yaml;
    std::rename((file + ".new").c_str(), file.c_str());
  }
  void Load(const std::string& yaml) {
    Write(yaml);
    auto loaded = ApiKeys::Load(file, clock);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    keys = *std::move(loaded);
  }
  bool Accepts(const std::string& key) { return keys->Check("Bearer " + key).ok(); }

  TemporaryFolder folder;
  const std::string file = folder.File("keys.yaml");
  ManualClock clock{1'800'000'000'000};  // 2027-01-15
  std::unique_ptr<ApiKeys> keys;
};

TEST_F(Keys, AKeyHasATenantAndOthersAreRefusedAlike) {
  Load("keys:\n" + Entry("team-a", "plm-aaa") + Entry("bob", "plm-bbb", "    tenant: team-b\n"));
  EXPECT_EQ((*keys->Check("Bearer plm-aaa"))->tenant(), "team-a");
  EXPECT_EQ((*keys->Check("bearer  plm-bbb"))->tenant(), "team-b");
  EXPECT_EQ((*keys->Check("Bearer plm-bbb"))->name(), "bob");
  const absl::Status wrong = keys->Check("Bearer plm-ccc").status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Message(wrong), Not(HasSubstr("plm-ccc")));
  for (const char* form : {"", "plm-aaa", "Basic plm-aaa", "Bearer", "Bearer ", "Bearer plm-aaa "}) {
    EXPECT_EQ(keys->Check(form).status(), wrong) << form;
  }
}

TEST_F(Keys, AKeyWorksUntilTheEndOfItsLastDay) {
  Load("keys:\n" + Entry("a", "k", "    expires: 2027-01-15\n"));
  EXPECT_TRUE(Accepts("k"));
  clock.Advance(std::chrono::hours(16));
  EXPECT_FALSE(Accepts("k"));
  EXPECT_EQ(keys->Check("Bearer k").status(), keys->Check("Bearer unknown").status());
}

TEST_F(Keys, RequestsAtOnceAreCountedWhileTheyLast) {
  Load("keys:\n" + Entry("a", "k", "    concurrent: 2\n"));
  auto one = keys->Check("Bearer k"), two = keys->Check("Bearer k");
  ASSERT_TRUE(one.ok() && two.ok());
  const absl::Status third = keys->Check("Bearer k").status();
  EXPECT_EQ(third.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(third), 1);
  EXPECT_THAT(Message(third), AllOf(HasSubstr("key 'a'"), HasSubstr("`concurrent` is 2")));
  one->reset();
  EXPECT_TRUE(Accepts("k"));
}

TEST_F(Keys, RequestsAMinuteComeBackWithTime) {
  Load("keys:\n" + Entry("a", "k", "    requests_per_minute: 3\n") + Entry("b", "other"));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Accepts("k"));
  const absl::Status fourth = keys->Check("Bearer k").status();
  EXPECT_EQ(RetryAfter(fourth), 20);
  EXPECT_THAT(Message(fourth), AllOf(HasSubstr("key 'a'"), HasSubstr("3 times a minute"),
                                     HasSubstr("`requests_per_minute`"), HasSubstr("in 20 s")));
  EXPECT_TRUE(Accepts("other"));
  clock.Advance(std::chrono::seconds(20));
  EXPECT_TRUE(Accepts("k"));
  EXPECT_FALSE(Accepts("k"));
}

TEST_F(Keys, AChangedFileIsReadAgainAndItsQuotasGoOn) {
  Load("keys:\n" + Entry("a", "old", "    requests_per_minute: 1\n"));
  EXPECT_TRUE(Accepts("old"));
  Write("keys:\n" + Entry("a", "old", "    requests_per_minute: 1\n") + Entry("b", "new"));
  keys->Refresh();
  EXPECT_TRUE(Accepts("new"));
  EXPECT_FALSE(Accepts("old"));
  Write("keys:\n" + Entry("b", "new"));
  keys->Refresh();
  clock.Advance(std::chrono::hours(1));
  EXPECT_EQ(keys->Check("Bearer old").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(Keys, AWrongFileKeepsTheOldKeysAndSaysSoOnce) {
  Load("keys:\n" + Entry("a", "k"));
  std::string log;
  InitLog({.level = LogLevel::kWarn, .sink = [&](std::string_view line) { log += line; }});
  Write("keys:\n  - nme: a\n");
  keys->Refresh();
  keys->Refresh();
  InitLog({});
  EXPECT_TRUE(Accepts("k"));
  EXPECT_THAT(log,
              AllOf(HasSubstr("kept as they were"), HasSubstr("line 2"), HasSubstr("did you mean name")));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1);
}

TEST_F(Keys, AFileThatOthersMayWriteIsWarnedOf) {
  Write("keys:\n" + Entry("a", "k"));
  ::chmod(file.c_str(), 0666);
  std::string log;
  InitLog({.level = LogLevel::kWarn, .sink = [&](std::string_view line) { log += line; }});
  EXPECT_TRUE(ApiKeys::Load(file).ok());
  InitLog({});
  EXPECT_THAT(log, HasSubstr("chmod go-w"));
}

TEST_F(Keys, ANewKeyWorksWithItsEntry) {
  const NewKey made = MakeKey("it's: a name");
  EXPECT_TRUE(made.key.starts_with("plm-"));
  EXPECT_TRUE(Hash256::FromHex(made.key.substr(4)).ok());
  EXPECT_NE(made.key, MakeKey("x").key);
  EXPECT_THAT(made.entry, Not(HasSubstr(made.key)));
  Load("keys:\n" + made.entry);
  EXPECT_EQ((*keys->Check("Bearer " + made.key))->name(), "it's: a name");
}

TEST(KeysFile, WhatIsWrongIsNamedWithItsLine) {
  const std::string hash = Sha256("k").ToHex();
  const std::string good = "keys:\n  - name: a\n    sha256: " + hash + "\n";
  ASSERT_TRUE(ParseApiKeys(good, "k.yaml").ok());
  const struct {
    std::string yaml, expected;
  } cases[] = {
      {"", "expected `keys:`"},
      {"keys: 3\n", "expected `keys:`"},
      {"kees: []\n", "expected `keys:`"},
      {"keys: [\n", "not YAML"},
      {"keys:\n  - a\n", "line 2: a key is a list item"},
      {"keys:\n  - name: a\n", "line 2: a key needs both"},
      {"keys:\n  - name: a\n    sha256: 1234\n", "line 3: sha256: 64 hex digits"},
      // As docs/serve.md has it, where nobody's hash may stand.
      {"keys:\n  - name: a\n    sha256: <64 hex digits that --make-key prints>\n",
       "line 3: sha256: 64 hex digits"},
      {"keys:\n  - name: [a]\n", "line 2: 'name': expected one value"},
      {good + "    expires: 2027-02-30\n", "line 4: expires '2027-02-30'"},
      {good + "    expires: tomorrow\n", "line 4: expires 'tomorrow'"},
      {good + "    concurrent: 0\n", "line 4: concurrent '0'"},
      {good + "    requests_per_minute: -1\n", "line 4: requests_per_minute '-1'"},
      {good + "    scopes: all\n", "line 4: unknown field 'scopes'"},
      {good + "  - name: a\n    sha256: " + Sha256("l").ToHex() + "\n", "line 4: the name 'a' stands twice"},
      {good + "  - name: b\n    sha256: " + hash + "\n", "line 4: key 'b' has the sha256 of another"},
  };
  for (const auto& [yaml, expected] : cases) {
    const auto parsed = ParseApiKeys(yaml, "k.yaml");
    ASSERT_FALSE(parsed.ok()) << yaml;
    EXPECT_THAT(Message(parsed.status()), AllOf(HasSubstr("k.yaml line"), HasSubstr(expected)));
    EXPECT_THAT(Message(parsed.status()), Not(HasSubstr(hash)));
  }
  EXPECT_EQ(ReadApiKeysFile("/nonexistent/keys").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace palimpsest::http
