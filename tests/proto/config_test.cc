#include "proto/base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

ConfigInputs Inputs(std::map<std::string, std::string> environment = {},
                    std::vector<std::pair<std::string, std::string>> flags = {}) {
  environment.emplace("HOME", "/home/ada");
  return {.file = "", .environment = std::move(environment), .flags = std::move(flags)};
}

Config Parsed(std::string_view yaml, const ConfigInputs& inputs = Inputs()) {
  absl::StatusOr<Config> config = ParseConfig(yaml, "c.yaml", inputs);
  EXPECT_TRUE(config.ok()) << config.status().ToString();
  return config.ok() ? *config : Config();
}

std::string ErrorOf(std::string_view yaml, const ConfigInputs& inputs = Inputs()) {
  const absl::StatusOr<Config> config = ParseConfig(yaml, "c.yaml", inputs);
  EXPECT_FALSE(config.ok()) << yaml;
  return config.ok() ? "" : Message(config.status());
}

// ---- Sources ----

TEST(ConfigTest, AnEmptyFileLeavesTheDefaults) {
  for (const char* yaml : {"", "\n", "# nothing\n", "---\n", "device:\n", "~"}) {
    const Config config = Parsed(yaml);
    EXPECT_EQ(config.device.arena_bytes, kGiB) << yaml;
    EXPECT_EQ(config.host.store_bytes, 4 * kGiB);
    EXPECT_EQ(config.prefill.chunk_tokens, 512);
    EXPECT_EQ(config.generate.max_tokens, 256);
    EXPECT_EQ(config.log.level, "info");
    EXPECT_TRUE(config.sources.empty());
  }
}

TEST(ConfigTest, TheFileSetsEveryKindOfField) {
  const Config config = Parsed(R"(
model: smollm2
threads: {count: 3, pin: false}
device:
  arena_bytes: 256MiB
  isa: avx2
prefill:
  chunk_tokens: 2K
generate:
  temperature: 0.7
)");
  EXPECT_EQ(config.model, "smollm2");
  EXPECT_EQ(config.threads.count, 3);
  EXPECT_FALSE(config.threads.pin);
  EXPECT_EQ(config.device.arena_bytes, 256 << 20);
  EXPECT_EQ(config.device.isa, "avx2");
  EXPECT_EQ(config.prefill.chunk_tokens, 2048);
  EXPECT_EQ(config.generate.temperature, 0.7);
  EXPECT_EQ(config.sources.at("device.isa"), "c.yaml line 6");
}

TEST(ConfigTest, FlagsWinOverTheEnvironmentAndThatOverTheFile) {
  const std::string yaml = "device: {arena_bytes: 2GiB}\nhost: {store_bytes: 2GiB}\nlog: {level: warn}\n";
  const Config config = Parsed(
      yaml, Inputs({{"PALIMPSEST_DEVICE_ARENA_BYTES", "3GiB"}, {"PALIMPSEST_HOST_STORE_BYTES", "3GiB"}},
                   {{"device.arena_bytes", "5GiB"}, {"device.arena_bytes", "4GiB"}}));
  EXPECT_EQ(config.device.arena_bytes, 4 * kGiB);
  EXPECT_EQ(config.sources.at("device.arena_bytes"), "flag");
  EXPECT_EQ(config.host.store_bytes, 3 * kGiB);
  EXPECT_EQ(config.sources.at("host.store_bytes"), "PALIMPSEST_HOST_STORE_BYTES");
  EXPECT_EQ(config.log.level, "warn");
  EXPECT_EQ(config.sources.at("log.level"), "c.yaml line 3");
}

TEST(ConfigTest, EveryFieldCanBeSetFromEverySource) {
  const Config defaults = Parsed("");
  for (const ConfigField& field : ConfigFields()) {
    const std::string value = field.default_value.empty() ? "\"/x\"" : field.default_value;
    const std::string text = field.default_value.empty() ? "/x" : value;
    const size_t dot = field.key.find('.');
    const std::string yaml = dot == std::string::npos ? field.key + ": " + value
                                                      : field.key.substr(0, dot) + ": {" +
                                                            field.key.substr(dot + 1) + ": " + value + "}";
    EXPECT_EQ(Parsed(yaml).sources.count(field.key), 1u) << yaml;
    EXPECT_EQ(Parsed("", Inputs({{field.environment, text}})).sources.at(field.key), field.environment);
    EXPECT_EQ(Parsed("", Inputs({}, {{field.key, text}})).sources.at(field.key), "flag");
  }
}

TEST(ConfigTest, OtherVariablesAreNotOurs) {
  Parsed("", Inputs({{"PATH", "/bin"},
                     {"PALIMPSESTX", "1"},
                     {"PALIMPSEST_TEST_MODEL", "/m.gguf"},
                     {"PALIMPSEST_CONFIG", "/c.yaml"},
                     {"PALIMPSEST_DEVICE_ISA", ""}}));
}

// ---- The data folder ----

TEST(ConfigDataDirTest, FollowsTheXdgRule) {
  EXPECT_EQ(Parsed("").data_dir, "/home/ada/.local/share/palimpsest");
  EXPECT_EQ(Parsed("", Inputs({{"XDG_DATA_HOME", "/big"}})).data_dir, "/big/palimpsest");
  EXPECT_EQ(Parsed("", Inputs({{"XDG_DATA_HOME", "relative"}})).data_dir,
            "/home/ada/.local/share/palimpsest");
  EXPECT_EQ(Parsed("", Inputs({{"XDG_DATA_HOME", "/big"}, {"PALIMPSEST_DATA_DIR", "/p"}})).data_dir, "/p");
  EXPECT_EQ(Parsed("", Inputs({{"PALIMPSEST_DATA_DIR", "/p"}}, {{"data_dir", "/f"}})).data_dir, "/f");
}

TEST(ConfigDataDirTest, ATildeIsTheHomeFolder) { EXPECT_EQ(Parsed("data_dir: ~/d").data_dir, "/home/ada/d"); }

TEST(ConfigDataDirTest, WithoutAHomeItMustBeGiven) {
  ConfigInputs inputs;
  EXPECT_THAT(ErrorOf("", inputs), HasSubstr("pass --data-dir"));
  EXPECT_THAT(ErrorOf("data_dir: ~/d", inputs), HasSubstr("HOME is not set"));
  EXPECT_TRUE(ParseConfig("data_dir: /d", "c.yaml", inputs).ok());
}

TEST(ConfigDataDirTest, AnEmptyOneIsNotTheDefault) {
  EXPECT_THAT(ErrorOf("data_dir: ''"), HasSubstr("data_dir is empty"));
}

// ---- Errors ----

TEST(ConfigErrorTest, AnUnknownKeyIsNamedWithItsLineAndTheNearest) {
  EXPECT_EQ(ErrorOf("device:\n  isa: avx2\n  arena_byte: 1GiB\n"),
            "c.yaml line 3: unknown key 'device.arena_byte'; did you mean device.arena_bytes?");
  EXPECT_EQ(ErrorOf("devise:\n  isa: avx2\n"), "c.yaml line 1: unknown key 'devise'; did you mean device?");
  EXPECT_EQ(ErrorOf("modell: x\n"), "c.yaml line 1: unknown key 'modell'; did you mean model?");
  EXPECT_EQ(ErrorOf("\ncolour: red\n"), "c.yaml line 2: unknown key 'colour'");
}

TEST(ConfigErrorTest, AKeyInTheWrongSectionIsShownItsPlace) {
  EXPECT_THAT(ErrorOf("arena_bytes: 1GiB\n"), HasSubstr("did you mean device.arena_bytes?"));
  EXPECT_THAT(ErrorOf("generate: {chunk_tokens: 1}\n"), HasSubstr("did you mean prefill.chunk_tokens?"));
}

TEST(ConfigErrorTest, AnUnknownVariableIsNamedWithTheNearest) {
  EXPECT_EQ(ErrorOf("", Inputs({{"PALIMPSEST_DEVICE_ARENA_BYTE", "1GiB"}})),
            "unknown environment variable 'PALIMPSEST_DEVICE_ARENA_BYTE'; did you mean "
            "PALIMPSEST_DEVICE_ARENA_BYTES?");
  EXPECT_EQ(ErrorOf("", Inputs({{"PALIMPSEST_COLOUR", "red"}})),
            "unknown environment variable 'PALIMPSEST_COLOUR'");
}

TEST(ConfigErrorTest, AnUnknownFlagIsNamedWithTheNearest) {
  EXPECT_EQ(ErrorOf("", Inputs({}, {{"log.levle", "info"}})),
            "flag: unknown key 'log.levle'; did you mean log.level?");
}

TEST(ConfigErrorTest, ABadValueIsNamedWithSourceAndKey) {
  EXPECT_THAT(ErrorOf("device:\n  arena_bytes: 4GB\n"),
              HasSubstr("c.yaml line 2: device.arena_bytes: '4GB' is not"));
  EXPECT_EQ(ErrorOf("device: {arena_bytes: 1MiB}"),
            "c.yaml line 1: device.arena_bytes: 1MiB is out of range; accepted: bytes, 0 or 16MiB to 16TiB");
  EXPECT_EQ(
      ErrorOf("device: {isa: avx521}"),
      "c.yaml line 1: device.isa: 'avx521' is not auto, avx512, avx2 or portable; did you mean avx512?");
  EXPECT_EQ(ErrorOf("", Inputs({{"PALIMPSEST_THREADS_PIN", "yes"}})),
            "PALIMPSEST_THREADS_PIN: threads.pin: 'yes' is not true or false");
  EXPECT_EQ(ErrorOf("", Inputs({}, {{"generate.top_p", "0"}})),
            "flag: generate.top_p: 0 is out of range; accepted: number, above 0 to 1");
  EXPECT_THAT(ErrorOf("", Inputs({}, {{"threads.count", "-1"}})), HasSubstr("-1 is out of range"));
}

TEST(ConfigErrorTest, ZeroIsInRangeOnlyWhereItMeansSomething) {
  EXPECT_EQ(Parsed("device: {arena_bytes: 0}").device.arena_bytes, 0);
  EXPECT_THAT(ErrorOf("prefill: {chunk_tokens: 0}"), HasSubstr("out of range"));
}

TEST(ConfigErrorTest, TheShapeOfTheFileIsChecked) {
  EXPECT_THAT(ErrorOf("- a\n- b\n"), HasSubstr("expected `key: value` lines"));
  EXPECT_THAT(ErrorOf("just text"), HasSubstr("expected `key: value` lines"));
  EXPECT_THAT(ErrorOf("device: avx2\n"), HasSubstr("device is a section"));
  EXPECT_THAT(ErrorOf("device: {isa: [avx2]}\n"), HasSubstr("expected one value"));
  EXPECT_THAT(
      ErrorOf("device:\n  isa:\n"),
      HasSubstr("line 2: device.isa: expected a value (auto, avx512, avx2 or portable), not nothing"));
  EXPECT_THAT(ErrorOf("{[a]: b}"), HasSubstr("a key must be a name"));
  EXPECT_THAT(ErrorOf("device.isa: avx2\n"), HasSubstr("write 'device.isa' as a section"));
  EXPECT_THAT(ErrorOf("model: a\n---\nmodel: b\n"), HasSubstr("text after the end of the YAML document"));
  EXPECT_THAT(ErrorOf("device: {isa: avx2\n"), HasSubstr("not YAML"));
  EXPECT_THAT(ErrorOf("log:\n  level: info\n\tformat: json\n"), HasSubstr("c.yaml line 3: not YAML"));
}

TEST(ConfigErrorTest, AKeyThatStandsTwiceIsAnError) {
  EXPECT_EQ(ErrorOf("log:\n  level: info\n  level: warn\n"), "c.yaml line 3: 'log.level' stands twice");
  EXPECT_EQ(ErrorOf("log: {level: info}\nlog: {format: json}\n"), "c.yaml line 2: 'log' stands twice");
}

TEST(ConfigErrorTest, FieldsMustHoldTogether) {
  EXPECT_EQ(
      ErrorOf("limits: {question_bytes: 2MiB, document_bytes: 1MiB}"),
      "limits.question_bytes 2MiB is above limits.document_bytes 1MiB: lower the one or raise the other");
}

TEST(ConfigErrorTest, ATextFieldHoldsNoControlCharacters) {
  EXPECT_THAT(ErrorOf("model: \"a\\nb\"\n"), HasSubstr("control characters"));
  EXPECT_THAT(ErrorOf("", Inputs({{"PALIMPSEST_MODEL", "\xff"}})), HasSubstr("not UTF-8"));
  EXPECT_THAT(ErrorOf("model: " + std::string(5000, 'x')), HasSubstr("at most 4096"));
}

TEST(ConfigErrorTest, HostileFilesAreErrorsNotCrashes) {
  EXPECT_THAT(ErrorOf(std::string(2 << 20, '#')), HasSubstr("at most 1048576"));
  EXPECT_THAT(ErrorOf(std::string(100'000, '[')), HasSubstr("not YAML"));
  EXPECT_THAT(ErrorOf(std::string(100'000, '{')), HasSubstr("not YAML"));
  // Found by fuzzing: yaml-cpp 0.7 sees empty documents without end here.
  EXPECT_THAT(ErrorOf("&L 1.2\xf6\xd2\xd2\xcd\n? model\n: !!str \"a\\|b\"d"), HasSubstr("c.yaml"));
  EXPECT_FALSE(ParseConfig("a: &a {b: *a}\n", "c.yaml", Inputs()).ok());
  EXPECT_FALSE(ParseConfig("device: *nowhere\n", "c.yaml", Inputs()).ok());
  EXPECT_FALSE(ParseConfig(std::string_view("model: \0x", 9), "c.yaml", Inputs()).ok());
}

TEST(ValidateConfigTest, ChecksAStructThatCodeHasFilled) {
  Config config = Parsed("");
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.threads.count = -5;
  EXPECT_EQ(Message(ValidateConfig(config)),
            "config: threads.count: -5 is out of range; accepted: whole number, 0 to 1024");
}

// ---- The file on disk ----

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    path_ = std::filesystem::temp_directory_path() /
            ("palimpsest_config_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
             std::to_string(getpid()) + ".yaml");
    std::ofstream(path_) << "log: {level: debug}\n";
  }
  ~ConfigFileTest() override { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

TEST_F(ConfigFileTest, TheFlagNamesTheFile) {
  ConfigInputs inputs = Inputs({{"PALIMPSEST_CONFIG", "/nowhere.yaml"}});
  inputs.file = path_;
  const absl::StatusOr<Config> config = LoadConfig(inputs);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->log.level, "debug");
  EXPECT_EQ(config->sources.at("log.level"), path_.string() + " line 1");
}

TEST_F(ConfigFileTest, TheEnvironmentNamesItOtherwise) {
  const absl::StatusOr<Config> config = LoadConfig(Inputs({{"PALIMPSEST_CONFIG", path_}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->log.level, "debug");
}

TEST_F(ConfigFileTest, AMissingFileOrAFolderIsAnError) {
  ConfigInputs inputs = Inputs();
  inputs.file = "/nowhere/c.yaml";
  EXPECT_EQ(LoadConfig(inputs).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(LoadConfig(inputs).status()), HasSubstr("config file '/nowhere/c.yaml': No such file"));
  inputs.file = path_.parent_path();
  EXPECT_FALSE(LoadConfig(inputs).ok());
}

TEST(LoadConfigTest, NoFileIsNeeded) { EXPECT_TRUE(LoadConfig(Inputs()).ok()); }

// ---- Printing ----

TEST(PrintEffectiveTest, ShowsEachValueWithItsSource) {
  const std::string yaml =
      PrintEffective(Parsed("log: {level: warn}", Inputs({}, {{"device.arena_bytes", "1536MiB"}})));
  EXPECT_THAT(yaml, HasSubstr("data_dir: \"/home/ada/.local/share/palimpsest\"  # folder; default\n"));
  EXPECT_THAT(yaml, HasSubstr("device:\n  arena_bytes: 1536MiB  # bytes, 0 or 16MiB to 16TiB; flag\n"));
  EXPECT_THAT(yaml, HasSubstr("  level: warn  # trace, debug, info, warn, error or off; c.yaml line 1\n"));
  EXPECT_THAT(yaml, HasSubstr("  temperature: 0  # number, 0 to 10; default\n"));
}

TEST(PrintEffectiveTest, ReadsBackAsTheSameConfig) {
  const ConfigInputs inputs =
      Inputs({{"PALIMPSEST_MODEL", "a \"quoted\" \\ name: # é"}},
             {{"generate.temperature", "0.1"}, {"generate.seed", "9223372036854775807"}});
  Config config = Parsed("threads: {pin: false}", inputs);
  Config back = Parsed(PrintEffective(config), Inputs());
  config.sources.clear();
  back.sources.clear();
  EXPECT_EQ(PrintEffective(back), PrintEffective(config));
  EXPECT_EQ(back.model, config.model);
  EXPECT_EQ(back.generate.temperature, 0.1);
}

TEST(ConfigFieldsTest, NamesAreUnique) {
  std::map<std::string, int> keys, variables;
  for (const ConfigField& field : ConfigFields()) {
    EXPECT_EQ(++keys[field.key], 1) << field.key;
    EXPECT_EQ(++variables[field.environment], 1) << field.environment;
    EXPECT_FALSE(field.accepts.empty());
  }
  EXPECT_EQ(variables.count("PALIMPSEST_DATA_DIR"), 1u);
  EXPECT_EQ(variables.count("PALIMPSEST_DEVICE_ARENA_BYTES"), 1u);
}

}  // namespace
}  // namespace palimpsest
