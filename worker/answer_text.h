// Turns generated tokens into the text a client sees: whole UTF-8 characters, ended before a stop string.
//
// Text that may yet turn out to be the beginning of a stop string is held back until it is known not to be.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace palimpsest {

class AnswerText {
 public:
  AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops);

  // Text that became certain with this token. After a stop string was met (of several, the one complete
  // first), stopped() is true and nothing more comes.
  std::string Push(int32_t token);
  // What was held back, at the end of the answer.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::string Release(bool at_end);

  Detokenizer detokenizer_;
  const std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace palimpsest
