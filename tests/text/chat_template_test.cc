#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::vector<ChatMessage> kTurns = {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Ho"}};

absl::StatusOr<std::string> Render(const std::string& source,
                                   const std::vector<ChatMessage>& messages = kTurns,
                                   bool generation = true) {
  ChatTemplate::Options options;
  options.add_generation_prompt = generation;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = std::chrono::system_clock::from_time_t(1741356309);  // 2025-03-07 14:05:09 UTC
  auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(messages, options);
}

std::string Text(const std::string& source, const std::vector<ChatMessage>& messages = kTurns) {
  const absl::StatusOr<std::string> text = Render(source, messages);
  return text.ok() ? *text : "error: " + Message(text.status());
}

// The message with which `source` is refused, by Parse or Render.
std::string Refusal(const std::string& source) {
  const absl::StatusOr<std::string> text = Render(source);
  if (text.ok()) return "rendered: " + *text;
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  return Message(text.status());
}

std::string ParseRefusal(const std::string& source) {
  const auto parsed = ChatTemplate::Parse(source);
  return parsed.ok() ? "parsed" : Message(parsed.status());
}

// --- text and whitespace ---

TEST(ChatTemplate, TextWithoutTagsIsCopied) {
  EXPECT_EQ(Text("a {b} % # c"), "a {b} % # c");
  EXPECT_EQ(Text(""), "");
}

TEST(ChatTemplate, OneNewlineAtTheEndIsDropped) {
  EXPECT_EQ(Text("a\n"), "a");
  EXPECT_EQ(Text("a\n\n"), "a\n");
}

TEST(ChatTemplate, BlocksTakeTheirLineWithThem) {
  EXPECT_EQ(Text("a\n  {% if true %}\n b\n  {% endif %}\nc"), "a\n b\nc");
}

TEST(ChatTemplate, SignsTrimOrKeepWhitespace) {
  EXPECT_EQ(Text("a \n{%- if true -%} \n b {%- endif -%} \n c"), "abc");
  EXPECT_EQ(Text("  {%+ if true +%}\nb{% endif %}"), "  \nb");
  EXPECT_EQ(Text("a {{- 'b' -}} c"), "abc");
}

TEST(ChatTemplate, CommentsAreSilent) { EXPECT_EQ(Text("a{# {{ 1 }} #}b {#- x -#} c"), "abc"); }

TEST(ChatTemplate, RawTextIsNotInterpreted) {
  EXPECT_EQ(Text("{% raw %}{{ x }}{% y %}{% endraw %}"), "{{ x }}{% y %}");
}

// --- statements ---

TEST(ChatTemplate, ForGoesThroughTheMessages) {
  EXPECT_EQ(Text("{% for m in messages %}{{ loop.index }}{{ m.role }}={{ m['content'] }};{% endfor %}"),
            "1system=Be brief.;2user=Hi;3assistant=Ho;");
}

TEST(ChatTemplate, SetInALoopEndsWithItsIteration) {
  EXPECT_EQ(Text("{% set x = 0 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}"), "120");
}

TEST(ChatTemplate, NamespacesCarryValuesOutOfLoops) {
  EXPECT_EQ(Text("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ "
                 "ns.n }}"),
            "3");
}

TEST(ChatTemplate, BreakAndContinueSteerTheInnermostLoop) {
  EXPECT_EQ(Text("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break "
                 "%}{% endif %}"
                 "{{ i }}{% endfor %}"),
            "02");
}

TEST(ChatTemplate, MacrosSeeTheTopLevelAndTheirArguments) {
  EXPECT_EQ(Text("{% macro m(a, b='-') %}{{ a }}{{ b }}{{ g }}{% endmacro %}{% set g = 'G' %}{{ m(1) }}{{ "
                 "m(2, b=3) }}"),
            "1-G23G");
}

TEST(ChatTemplate, GenerationTagsOnlyMarkTheirBody) {
  EXPECT_EQ(Text("a{% generation %}{{ messages[2].content }}{% endgeneration %}b"), "aHob");
}

// --- expressions ---

TEST(ChatTemplate, UndefinedPrintsNothingButHasNoAttributes) {
  EXPECT_EQ(Text("[{{ nope }}{{ messages[0].nope }}{{ messages[9] }}]"), "[]");
  EXPECT_THAT(Refusal("a\n{{ nope.x }}"), HasSubstr("line 2: 'nope' is undefined"));
  EXPECT_THAT(Refusal("{{ messages[0]['tool_calls'][0] }}"), HasSubstr("'tool_calls' is undefined"));
}

TEST(ChatTemplate, ToolsAndDocumentsAreNone) {
  EXPECT_EQ(Text("{{ tools is none }}{{ documents is none }}{{ tools is defined }}"), "TrueTrueTrue");
}

TEST(ChatTemplate, TokensAreGivenAsWritten) { EXPECT_EQ(Text("{{ bos_token }}{{ eos_token }}"), "<s></s>"); }

TEST(ChatTemplate, TheClockIsTheOneGiven) {
  EXPECT_EQ(Text("{{ strftime_now('%d %b %Y %H:%M') }}"), "07 Mar 2025 14:05");
}

TEST(ChatTemplate, StringsAreCutByCharactersNotBytes) {
  EXPECT_EQ(Text("{{ 'h\u00e9\u4e16x'[1:3] }}{{ '\u4e16'|length }}"), "\u00e9\u4e161");
}

// --- what messages hold is never interpreted ---

TEST(ChatTemplate, TagsInMessagesAreText) {
  const std::string text = "{{ 7 * 7 }}{% raise_exception('x') %}{# y #}\\n";
  EXPECT_EQ(Text("{{ messages[0].content }}|{{ messages[0].content | trim }}", {{"user", text}}),
            text + "|" + text);
}

TEST(ChatTemplate, MessagesThatAreNotUtf8AreRefusedWithTheirPlace) {
  const absl::StatusOr<std::string> text = Render("x", {{"user", "ok"}, {"user", "ab\xff"}});
  EXPECT_EQ(Message(text.status()), "message 1: the content is not UTF-8 at byte 2; send UTF-8");
}

// --- errors ---

TEST(ChatTemplate, RaiseExceptionGivesItsMessage) {
  EXPECT_THAT(Refusal("{{ raise_exception('Roles must alternate') }}"),
              AllOf(HasSubstr("Roles must alternate"), HasSubstr("line 1")));
}

TEST(ChatTemplate, UnsupportedTagsAreRefusedByParseWithTheirLine) {
  for (const std::string& tag :
       std::vector<std::string>{"include 'x'", "import 'x' as y", "extends 'x'", "block b", "call m()",
                                "do x", "trans", "autoescape true", "endfor", "foo"}) {
    const std::string name = tag.substr(0, tag.find(' '));
    EXPECT_THAT(ParseRefusal("a\n\n{% " + tag + " %}"),
                AllOf(HasSubstr("line 3"), HasSubstr("'" + name + "'"), HasSubstr("not supported")));
  }
}

TEST(ChatTemplate, UnsupportedNamesAreRefusedByParse) {
  EXPECT_THAT(ParseRefusal("\n{{ x | xmlattr }}"),
              HasSubstr("line 2: the filter 'xmlattr' is not supported"));
  EXPECT_THAT(ParseRefusal("{{ x is filter }}"), HasSubstr("the test 'filter' is not supported"));
  EXPECT_THAT(ParseRefusal("{{ f(*x) }}"), HasSubstr("arguments by * and ** are not supported"));
  EXPECT_THAT(ParseRefusal("{% for a in b recursive %}{% endfor %}"), HasSubstr("recursive"));
  EXPECT_THAT(ParseRefusal("{% for a in b %}{% macro m() %}{% endmacro %}{% endfor %}"),
              HasSubstr("top level"));
  EXPECT_THAT(ParseRefusal("{% break %}"), HasSubstr("for loop"));
  EXPECT_THAT(ParseRefusal("{{ caller() }}"), HasSubstr("'caller'"));
}

TEST(ChatTemplate, BrokenSyntaxIsRefusedByParse) {
  for (const std::string& source : std::vector<std::string>{"{{ 1",
                                                            "{% if x %}",
                                                            "{{ }}",
                                                            "{{ 'a }}",
                                                            "{# x",
                                                            "{% raw %} x",
                                                            "{{ a b }}",
                                                            "{{ (1 }}",
                                                            "{{ 1) }}",
                                                            "{{ a. }}",
                                                            "{{ a | }}",
                                                            "{{ a is }}",
                                                            "{{ f(a=1, 2) }}",
                                                            "{{ 'a' !b }}",
                                                            "{% for %}{% endfor %}",
                                                            "{% set = 1 %}",
                                                            "{% set true = 1 %}",
                                                            "{% if %}{% endif %}",
                                                            "{{ 99999999999999999999 }}",
                                                            "{{ '\\ud800' }}",
                                                            "{% macro m(a=1, b) %}",
                                                            "{% if a %}{% else %}{% elif b %}{% endif %}",
                                                            "{{ \xc3\xa9 }}",
                                                            "{{ [1, }}",
                                                            "{{ {1} }}"}) {
    EXPECT_THAT(ParseRefusal(source), HasSubstr("line 1")) << source;
  }
  EXPECT_THAT(ParseRefusal("ab\xc3"), HasSubstr("not UTF-8 at byte 2"));
}

TEST(ChatTemplate, ErrorsNameTypesAndNeverContents) {
  for (const std::string& source : std::vector<std::string>{
           "{{ messages[1].content + 1 }}", "{{ messages[1].content < 1 }}",
           "{{ messages[1].content.encode() }}", "{{ messages[1].content | dictsort }}"}) {
    EXPECT_THAT(Refusal(source), Not(HasSubstr("Hi"))) << source;
  }
}

// --- the sandbox ---

TEST(ChatTemplate, ListsCannotBeChanged) {
  EXPECT_THAT(Refusal("{{ messages.append(1) }}"), HasSubstr("'append'"));
}

TEST(ChatTemplate, PythonsInternalsAreHidden) {
  EXPECT_EQ(Text("{{ ''.__class__ }}"), "");
  EXPECT_THAT(Refusal("{{ ''.__class__.__mro__ }}"), HasSubstr("undefined"));
}

TEST(ChatTemplate, LargeSourcesAreRefused) {
  EXPECT_EQ(ParseRefusal(std::string(256 << 10, 'x')), "parsed");
  EXPECT_THAT(ParseRefusal(std::string((256 << 10) + 1, 'x')), HasSubstr("262145 bytes"));
}

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ChatTemplate, DeepNestingIsRefused) {
  const int deep = 5000;
  for (const std::string& source : std::vector<std::string>{
           "{{ " + Repeat("(", deep) + "1" + Repeat(")", deep) + " }}",
           "{{ " + Repeat("[", deep) + Repeat("]", deep) + " }}", "{{ " + Repeat("not ", deep) + "1 }}",
           "{{ " + Repeat("-", deep) + "1 }}", "{{ a" + Repeat(".b", deep) + " }}",
           "{{ a" + Repeat("|trim", deep) + " }}", "{{ a" + Repeat("[0]", deep) + " }}",
           "{{ a" + Repeat("()", deep) + " }}", "{{ a" + Repeat(" if b else c", deep) + " }}",
           "{{ " + Repeat("a if b else ", deep) + "c }}",
           Repeat("{% if a %}", deep) + Repeat("{% endif %}", deep),
           Repeat("{% for a in b %}", deep) + Repeat("{% endfor %}", deep),
           "{% filter " + Repeat("trim|", deep) + "trim %}"}) {
    EXPECT_THAT(ParseRefusal(source), HasSubstr("nest deeper than 64")) << source.substr(0, 20);
  }
}

TEST(ChatTemplate, LongChainsAreNotDeep) {
  EXPECT_EQ(Text("{{ 1" + Repeat(" + 1", 5000) + " }}"), "5001");
  EXPECT_EQ(Text("{{ ''" + Repeat(" ~ 'a'", 5000) + " }}").size(), 5000u);
  EXPECT_EQ(Text("{{ 1" + Repeat(" and 1", 5000) + " }}"), "1");
  EXPECT_EQ(Text("{% if 0 %}" + Repeat("{% elif 0 %}", 5000) + "{% else %}x{% endif %}"), "x");
}

TEST(ChatTemplate, ValuesThatGrowDeepAreRefused) {
  EXPECT_THAT(
      Refusal("{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x] %}{% endfor %}"),
      HasSubstr("nest deeper than 64"));
  EXPECT_THAT(
      Refusal("{% set ns = namespace(x={}) %}{% for i in range(99) %}{% set ns.x = {1: ns.x} %}{% endfor %}"),
      HasSubstr("nest deeper than 64"));
  EXPECT_THAT(
      Refusal(
          "{% set ns = namespace(x=1) %}{% for i in range(99) %}{% for j in [ns.x] %}{% set ns.x = loop %}"
          "{% endfor %}{% endfor %}"),
      HasSubstr("nest deeper than 64"));
}

TEST(ChatTemplate, NamespacesMayHoldThemselves) {
  EXPECT_EQ(Text("{% set ns = namespace() %}{% set ns.self = [ns] %}{{ ns.self[0].self[0] == ns }}"), "True");
  EXPECT_THAT(Refusal("{% set ns = namespace() %}{% set ns.self = [ns] %}{{ ns.self }}"),
              HasSubstr("a namespace"));
}

TEST(ChatTemplate, EndlessMacrosAreRefused) {
  EXPECT_THAT(Refusal("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nest deeper than 400"));
}

TEST(ChatTemplate, EndlessWorkIsRefused) {
  const std::string loops = "{% for a in range(99999) %}{% for b in range(99999) %}";
  EXPECT_THAT(Refusal(loops + "{% endfor %}{% endfor %}"), HasSubstr("steps"));
  EXPECT_THAT(Refusal("{% set s = 'x' * 60000000 %}" + loops +
                      "{{ s | replace('y', 'z') | length }}{% endfor %}{% endfor %}"),
              HasSubstr("bytes of work"));
  EXPECT_THAT(Refusal("{{ 'x' * 70000000 }}"), HasSubstr("bytes in one text"));
  EXPECT_THAT(Refusal("{% set s = 'x' * 60000000 %}{{ s }}{{ s }}"), HasSubstr("67108864 bytes"));
  EXPECT_THAT(
      Refusal(
          "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"),
      HasSubstr("bytes in one text"));
  EXPECT_THAT(Refusal("{{ [1] * 2000000 }}"), HasSubstr("steps"));
  EXPECT_THAT(Refusal("{{ range(100001) }}"), HasSubstr("100000"));
}

TEST(ChatTemplate, OverflowIsAnErrorNotAWrongNumber) {
  EXPECT_THAT(Refusal("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(Refusal("{{ -9223372036854775807 - 2 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(Refusal("{{ 2 ** 63 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(Refusal("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("64 bits"));
  EXPECT_EQ(Text("{{ (-9223372036854775807 - 1) % -1 }}{{ -9223372036854775807 - 1 }}"),
            "0-9223372036854775808");
}

TEST(ChatTemplate, ALongDocumentRenders) {
  std::string document;
  document.resize(40'000'000, 'd');
  const absl::StatusOr<std::string> text =
      Render("{% for m in messages %}{{ '<' + m.role + '>\n' + m.content | trim + '<end>\n' }}{% endfor %}",
             {{"user", document}});
  ASSERT_TRUE(text.ok()) << Message(text.status());
  EXPECT_EQ(text->size(), document.size() + 13);
}

TEST(ChatTemplate, ManyThreadsRenderOneTemplate) {
  const auto parsed =
      ChatTemplate::Parse("{% set s = 'a' %}{% for m in messages %}{{ s + 'b' + m.role }}{% endfor %}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&parsed] {
      for (int i = 0; i < 200; ++i) EXPECT_EQ(*(*parsed)->Render(kTurns, {}), "absystemabuserabassistant");
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace palimpsest
