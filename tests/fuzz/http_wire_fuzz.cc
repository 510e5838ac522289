// The bytes of a connection as requests, one after the other: no bytes crash, and how they were cut into
// pieces makes no difference. The first byte says how long the pieces are.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "coordinator/http/request_parser.h"
#include "coordinator/http/target.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

using State = RequestParser::State;

constexpr int64_t kHeaderBytes = 512, kHeaders = 8;

// Everything that a server would learn, as text.
std::string Read(std::string_view bytes, size_t piece) {
  std::string learnt, ahead;
  auto parser = RequestParser::Create({kHeaderBytes, kHeaders});
  for (size_t at = 0; at < bytes.size(); at += piece) {
    ahead += bytes.substr(at, piece);
    for (State state = State::kHead; state != State::kNeedMore;) {
      size_t used = 0;
      state = parser->Put(ahead, used);
      PALIMPSEST_CHECK(used <= ahead.size());
      ahead.erase(0, used);
      if (state == State::kFailed) {
        PALIMPSEST_CHECK(parser->failure().status >= 400 && !parser->failure().message.empty());
        return learnt;
      }
      if (state == State::kBody) learnt += parser->body();
      if (state == State::kHead) {
        const RequestParser::Head& head = parser->head();
        PALIMPSEST_CHECK(!(head.chunked && head.content_length.has_value()));
        PALIMPSEST_CHECK(head.headers.size() <= kHeaders);
        learnt += fmt::format("[{} {} {}]", head.method, head.target, head.headers.size());
      }
      if (state == State::kDone) {
        learnt += "[done]";
        parser = RequestParser::Create({kHeaderBytes, kHeaders});
      }
    }
  }
  return learnt;
}

}  // namespace
}  // namespace palimpsest::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest::http;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string whole = Read(bytes, bytes.size() + 1), pieces = Read(bytes, 1 + data[0] % 64);
  // Not where it was refused: a head that can only be wrong may be refused before its end, or at it.
  PALIMPSEST_CHECK(whole == pieces, "{} bytes learnt at once, {} in pieces", whole.size(), pieces.size());
  return 0;
}
