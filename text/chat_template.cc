#include "text/chat_template.h"

#include <chrono>
#include <optional>
#include <utility>

#include "proto/base/status.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

std::optional<size_t> FirstInvalidByte(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = NextUtf8(text.substr(at));
    if (step.kind != Utf8Step::Kind::kCharacter) return at;
    at += step.bytes;
  }
  return std::nullopt;
}

class JinjaTemplate final : public ChatTemplate {
 public:
  explicit JinjaTemplate(jinja::Body body) : body_(std::move(body)) {}

  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                     const Options& options) const override {
    jinja::Interpreter interpreter(options.now);
    PALIMPSEST_ASSIGN_OR_RETURN(jinja::Value list, MessageList(messages, interpreter.budget()));
    interpreter.SetVariable("messages", std::move(list));
    interpreter.SetVariable("add_generation_prompt", jinja::Value(options.add_generation_prompt));
    interpreter.SetVariable("bos_token", jinja::Value(options.bos_token));
    interpreter.SetVariable("eos_token", jinja::Value(options.eos_token));
    interpreter.SetVariable("tools", jinja::Value(jinja::None{}));
    interpreter.SetVariable("documents", jinja::Value(jinja::None{}));
    return interpreter.Render(body_);
  }

 private:
  // [{'role': ..., 'content': ...}, ...]. The texts are values, never source: braces in them mean nothing.
  static absl::StatusOr<jinja::Value> MessageList(const std::vector<ChatMessage>& messages,
                                                  jinja::Budget* budget) {
    std::vector<jinja::Value> list;
    for (size_t i = 0; i < messages.size(); ++i) {
      for (const std::string* text : {&messages[i].role, &messages[i].content}) {
        const std::optional<size_t> invalid = FirstInvalidByte(*text);
        if (!invalid.has_value()) continue;
        return InvalidArgument("message {}: the {} is not UTF-8 at byte {}; send UTF-8", i,
                               text == &messages[i].role ? "role" : "content", *invalid);
      }
      auto message = std::make_shared<jinja::Dict>();
      message->entries.emplace_back(jinja::Value("role"), jinja::Value(messages[i].role));
      message->entries.emplace_back(jinja::Value("content"), jinja::Value(messages[i].content));
      list.emplace_back(std::move(message));
    }
    return jinja::MakeSequence(jinja::Sequence::Kind::kList, std::move(list), budget);
  }

  const jinja::Body body_;
};

// The rendering of one user message whose text is `marker`, cut at the marker.
absl::StatusOr<PromptFrame> CutAt(const ChatTemplate& chat_template, const ChatTemplate::Options& options,
                                  const std::string& marker) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, chat_template.Render({{"user", marker}}, options));
  const size_t at = text.find(marker);
  if (at == std::string::npos) {
    return InvalidArgument(
        "the chat template alters the user's text, so documents cannot be put before it; "
        "use a model whose template keeps it");
  }
  if (text.find(marker, at + 1) != std::string::npos) {
    return InvalidArgument(
        "the chat template repeats the user's text, so documents cannot be put before it; "
        "use a model whose template puts it out once");
  }
  return PromptFrame{text.substr(0, at), text.substr(at + marker.size())};
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(const std::string& source) {
  if (static_cast<int64_t>(source.size()) > jinja::kSourceBytesMax) {
    return InvalidArgument("the chat template has {} bytes, more than {}; use a shorter template",
                           source.size(), jinja::kSourceBytesMax);
  }
  if (const std::optional<size_t> invalid = FirstInvalidByte(source); invalid.has_value()) {
    return InvalidArgument("the chat template is not UTF-8 at byte {}; save it as UTF-8", *invalid);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(jinja::Body body, jinja::ParseTemplate(source));
  return std::make_shared<const JinjaTemplate>(std::move(body));
}

absl::StatusOr<PromptFrame> MakePromptFrame(const ChatTemplate& chat_template,
                                            const ChatTemplate::Options& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(PromptFrame frame, CutAt(chat_template, options, "qz7Palimpsest4Marker9xw"));
  // A second text, of another length and with all that a template might react to, must give the same frame.
  PALIMPSEST_ASSIGN_OR_RETURN(
      const PromptFrame other,
      CutAt(chat_template, options, "Xk2: {{ 1 }} {% if %}\n\n<a> \"b\" 'c' \\n \u00e9\u4e16 #3?"));
  if (frame.prefix != other.prefix || frame.tail != other.tail) {
    return InvalidArgument(
        "the chat template's frame depends on the user's text; use a model whose template does not");
  }
  return frame;
}

}  // namespace palimpsest
