// Chat templates of model files: the Jinja subset that public models' templates use, sandboxed.
//
// Supported: for (with loop.first/last/index/index0/length/previtem/nextitem), if/elif/else, set (also
// namespace attributes), comments, whitespace control, expressions (arithmetic, comparison, in, is,
// and/or/not, inline if, ~, slices, filters, method calls, string and list and dict literals), macros;
// raise_exception, namespace, range, strftime_now. Anything else is InvalidArgument naming the construct and
// its line. Limits: source 256 KiB, nesting 64, steps 10^6, output 64 MiB. Templates come from the model
// package only, never from a client.
//
// Threads: a ChatTemplate is immutable; Render from any thread.
// Source : Jinja 3 documentation; checked against Python's jinja2 in tests.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // UTF-8
};

class ChatTemplate {
 public:
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(std::string source);
  virtual ~ChatTemplate() = default;

  struct Options {
    bool add_generation_prompt = true;
    std::string bos_token, eos_token;  // as written
  };
  virtual absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                             const Options& options) const = 0;
};

// A prompt in three parts, whose concatenation is the rendered template (design.md 6):
//   prefix  : the template's head with the default system text, up to where the user's text begins
//   tail    : from the end of the user's text to where the answer begins
struct PromptFrame {
  std::string prefix;
  std::string tail;
};
// Renders with a marker as the user's text and cuts there. InvalidArgument if the template alters or repeats
// it.
absl::StatusOr<PromptFrame> MakePromptFrame(const ChatTemplate& chat_template,
                                            const ChatTemplate::Options& options);

}  // namespace palimpsest
