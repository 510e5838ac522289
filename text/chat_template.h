// Chat templates of model files: the Jinja subset that public models' templates use, sandboxed.
//
// Supported: for (with break, continue, else and all of loop but changed), if/elif/else, set (also blocks
//            and namespace attributes), with, filter, raw, generation, comments, whitespace control,
//            expressions (arithmetic, comparison, in, is, and/or/not, inline if, ~, slices, filters, method
//            calls, string and list and dict literals), macros at the top level; raise_exception,
//            namespace, dict, range, strftime_now, tojson as in transformers. Anything else is
//            InvalidArgument naming the construct and its line.
// Limits   : source 256 KiB, nesting 64, steps 10^6, output 64 MiB (text/jinja/budget.h). Templates come
//            from the model package only, never from a client; texts of messages are values and never
//            interpreted.
//
// Variables: messages, add_generation_prompt, bos_token, eos_token; tools and documents are None.
// Threads  : a ChatTemplate is immutable; Render from any thread.
// Source   : Jinja 3 documentation; checked against Python's jinja2 in tests.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
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
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(const std::string& source);
  virtual ~ChatTemplate() = default;

  struct Options {
    bool add_generation_prompt = true;
    std::string bos_token, eos_token;  // as written
    std::chrono::system_clock::time_point now =
        std::chrono::system_clock::now();  // of strftime_now, told in UTC
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

// A rendered conversation cut at its messages' texts; all pieces together are the rendering. Only pieces that
// the template wrote may be parsed for special tokens.
struct ChatPiece {
  std::string text;
  std::optional<size_t>
      message;  // whose text this is, trimmed if the template trims; none: the template's own
};
// Renders once with a marker in place of each text, to know where they go, and once as it is, which must be
// the same with the texts in these places. InvalidArgument, naming the message, where the template leaves
// out, repeats, changes or reacts to a text, or refuses the conversation. An empty text has no piece.
absl::StatusOr<std::vector<ChatPiece>> RenderChatPieces(const ChatTemplate& chat_template,
                                                        const std::vector<ChatMessage>& messages,
                                                        const ChatTemplate::Options& options);

}  // namespace palimpsest
