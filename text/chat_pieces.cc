// Where the texts of a conversation stand in its rendering.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "proto/base/status.h"
#include "text/chat_template.h"
#include "text/jinja/utf8.h"

namespace palimpsest {
namespace {

// Letters and digits, so that no filter of a template changes it; of one length, so that none is part of
// another.
std::string Marker(size_t message) { return fmt::format("qz7Palimpsest{:08}Marker9xw", message); }

struct Place {
  size_t begin;    // in the rendering with markers
  size_t message;  // whose
};

absl::StatusOr<std::vector<Place>> FindMarkers(const std::string& rendering,
                                               const std::vector<ChatMessage>& messages) {
  std::vector<Place> places;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].content.empty()) continue;
    const std::string marker = Marker(i);
    const size_t begin = rendering.find(marker);
    if (begin == std::string::npos) {
      return InvalidArgument(
          "messages[{}]: the model's chat template leaves out or changes the text of this {} "
          "message; leave the message out",
          i, messages[i].role);
    }
    if (rendering.find(marker, begin + 1) != std::string::npos) {
      return InvalidArgument(
          "messages[{}]: the model's chat template repeats the text of this {} message, "
          "which is not supported; leave the message out",
          i, messages[i].role);
    }
    places.push_back({begin, i});
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.begin < b.begin; });
  return places;
}

// The template's own pieces and, between them, the messages' places, still without text.
std::vector<ChatPiece> CutAtMarkers(const std::string& rendering, const std::vector<Place>& places) {
  std::vector<ChatPiece> pieces;
  size_t at = 0;
  for (const Place& place : places) {
    if (place.begin > at) pieces.push_back({rendering.substr(at, place.begin - at), std::nullopt});
    pieces.push_back({"", place.message});
    at = place.begin + Marker(place.message).size();
  }
  if (at < rendering.size()) pieces.push_back({rendering.substr(at), std::nullopt});
  return pieces;
}

// What templates make of a text that they put out: it, or it without space at an end.
std::optional<std::string_view> FormOf(std::string_view text, std::string_view rendering,
                                       const std::string* next) {
  const std::array<std::string_view, 4> forms = {text, jinja::TrimLeft(jinja::TrimRight(text)),
                                                 jinja::TrimRight(text), jinja::TrimLeft(text)};
  for (const std::string_view form : forms) {
    if (!rendering.starts_with(form)) continue;
    const std::string_view rest = rendering.substr(form.size());
    // Two texts with nothing between them: the second one is found by itself.
    if (next == nullptr || rest.starts_with(*next)) return form;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::vector<ChatPiece>> RenderChatPieces(const ChatTemplate& chat_template,
                                                        const std::vector<ChatMessage>& messages,
                                                        const ChatTemplate::Options& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string rendering, chat_template.Render(messages, options));
  std::vector<ChatMessage> marked;
  marked.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    marked.push_back({messages[i].role, messages[i].content.empty() ? "" : Marker(i)});
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string with_markers, chat_template.Render(marked, options));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<Place> places, FindMarkers(with_markers, messages));

  std::vector<ChatPiece> pieces = CutAtMarkers(with_markers, places);
  std::string_view left = rendering;
  std::optional<size_t> last;  // the message before
  for (size_t i = 0; i < pieces.size(); ++i) {
    ChatPiece& piece = pieces[i];
    const auto refused = [](size_t message) {
      return InvalidArgument(
          "messages[{}]: the model's chat template changes this text or reacts to it, which "
          "is not supported; word it differently",
          message);
    };
    if (piece.message.has_value()) {
      const bool own_follows = i + 1 < pieces.size() && !pieces[i + 1].message.has_value();
      const auto form =
          FormOf(messages[*piece.message].content, left, own_follows ? &pieces[i + 1].text : nullptr);
      if (!form.has_value()) return refused(*piece.message);
      piece.text = *form;
      last = piece.message;
    } else if (!left.starts_with(piece.text)) {
      return refused(last.value_or(places.empty() ? 0 : places.front().message));
    }
    left.remove_prefix(piece.text.size());
  }
  if (!left.empty())
    return InvalidArgument("the model's chat template reacts to the texts of this conversation");
  return pieces;
}

}  // namespace palimpsest
