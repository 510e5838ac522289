#include "text/tokenizer.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "proto/base/status.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/tokenizer_data.h"

namespace palimpsest {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr size_t kMaxWordBytes = size_t{16} << 20;  // merging takes up to 50 bytes of memory for each

// May plain text become this token? Not a control token (kAsText), and not one that would come back as other
// bytes: those that are written as they are, like "Ġ" of the unknown or user-defined type, which is no blank.
bool StandsForText(const TokenizerData& data, size_t id) {
  return !IsSpecialType(data.types[id]) && PieceOf(data, id) == BytesOfAlphabet(data.tokens[id]);
}

// A merge with a part or a result that is no token is an error: ids could not say what it makes, and no
// converter writes one. A merge whose result does not stand for text is left out.
absl::Status AddMerges(const TokenizerData& data, const IdByText& index, Bpe* bpe) {
  std::string result;
  for (size_t i = 0; i < data.merges.size(); ++i) {
    const std::string_view merge = data.merges[i];
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string_view::npos) {
      return InvalidArgument(
          "tokenizer: merge {} is not two tokens with one space between: the model file is damaged", i);
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    result.assign(left).append(right);
    const auto left_id = index.find(left), right_id = index.find(right),
               result_id = index.find(std::string_view(result));
    for (const auto& [what, id] :
         {std::pair("left part", left_id), {"right part", right_id}, {"result", result_id}}) {
      if (id == index.end()) {
        return InvalidArgument(
            "tokenizer: the {} of merge {} is not in the vocabulary of {} tokens: vocabulary and "
            "merges are from different models",
            what, i, data.tokens.size());
      }
    }
    if (!StandsForText(data, static_cast<size_t>(result_id->second))) continue;
    bpe->AddMerge(left_id->second, right_id->second, result_id->second);
  }
  return absl::OkStatus();
}

// A byte's token is the one that the alphabet writes as one character, or else the one of type 6.
void AddBytes(const TokenizerData& data, const IdByText& index, Bpe* bpe) {
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.types[id] != kByte) continue;
    if (const auto byte = ByteOf(data.tokens[id])) bpe->SetByte(*byte, static_cast<int32_t>(id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string token = AlphabetOfBytes(std::string(1, static_cast<char>(byte)));
    const auto found = index.find(std::string_view(token));
    if (found != index.end() && StandsForText(data, static_cast<size_t>(found->second))) {
      bpe->SetByte(static_cast<uint8_t>(byte), found->second);
    }
  }
}

// Ids of the words that one text has had so far: most words of a text come again.
class WordCache {
 public:
  static constexpr size_t kMaxWords = size_t{1} << 16;  // then it begins anew: frequent words are soon back
  static constexpr size_t kMaxWordBytes = 64;

  // Appends the ids of `word` if they are known.
  bool Find(std::string_view word, std::vector<int32_t>* ids) const {
    const auto found = words_.find(word);
    if (found == words_.end()) return false;
    const auto begin = ids_.begin() + found->second.begin;
    ids->insert(ids->end(), begin, begin + found->second.count);
    return true;
  }

  // `word` is a view into the text and lives as long as this cache.
  void Add(std::string_view word, std::span<const int32_t> ids) {
    if (words_.size() == kMaxWords) {
      words_.clear();
      ids_.clear();
    }
    words_.emplace(word, Range{static_cast<uint32_t>(ids_.size()), static_cast<uint32_t>(ids.size())});
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

 private:
  struct Range {
    uint32_t begin, count;  // in ids_
  };
  absl::flat_hash_map<std::string_view, Range> words_;
  std::vector<int32_t> ids_;
};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(const TokenizerData& data, Bpe bpe, std::unique_ptr<const PreTokenizer> pre_tokenizer)
      : hash_(HashOf(data)),
        bos_(data.bos),
        eos_(data.eos),
        add_bos_(data.add_bos),
        pre_tokenizer_(std::move(pre_tokenizer)),
        bpe_(std::move(bpe)) {
    const size_t count = data.tokens.size();
    pieces_.reserve(count);
    flags_.resize(count);
    for (size_t id = 0; id < count; ++id) {
      const int32_t type = data.types[id];
      pieces_.push_back(PieceOf(data, id));
      flags_[id].special = IsSpecialType(type);
      flags_[id].end = static_cast<int32_t>(id) == eos_;
    }
    for (int32_t id : data.end_tokens) flags_[id].end = true;
    for (size_t id = 0; id < count; ++id) {  // behind the loop that fills pieces_: these are views into it
      const int32_t type = data.types[id];
      if (pieces_[id].empty()) continue;
      if (type == kControl || type == kUserDefined)
        special_tokens_.Add(pieces_[id], static_cast<int32_t>(id));
      if (type == kNormal && pre_tokenizer_->whole_words_first() &&
          BytesOfAlphabet(data.tokens[id]).has_value()) {
        words_.emplace(pieces_[id], static_cast<int32_t>(id));
      }
    }
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, Special special) const override {
    if (text.size() > kMaxTextBytes) {
      return InvalidArgument("text of {} bytes: at most {} are tokenised at once; send it in parts",
                             text.size(), kMaxTextBytes);
    }
    PALIMPSEST_RETURN_IF_ERROR(CheckUtf8(text));
    Work work;
    work.ids.reserve(text.size() / 4 + 8);
    for (size_t at = 0; at < text.size();) {
      const SpecialTokens::Match match =
          special == Special::kParse ? special_tokens_.Find(text, at)
                                     : SpecialTokens::Match{.begin = text.size(), .length = 0, .id = -1};
      // What stands between special tokens is a text of its own: no word sees what is beyond.
      PALIMPSEST_RETURN_IF_ERROR(EncodeText(text.substr(at, match.begin - at), &work));
      if (match.id >= 0) work.ids.push_back(match.id);
      at = match.begin + match.length;
    }
    return std::move(work.ids);
  }

  std::string Decode(std::span<const int32_t> ids, bool with_special) const override {
    std::string text;
    for (int32_t id : ids) {
      if (IsKnown(id) && (with_special || !flags_[id].special)) text += pieces_[id];
    }
    return text;
  }

  int64_t vocabulary_size() const override { return static_cast<int64_t>(pieces_.size()); }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  bool add_bos() const override { return add_bos_; }
  bool IsEnd(int32_t id) const override { return IsKnown(id) && flags_[id].end; }
  bool IsSpecial(int32_t id) const override { return IsKnown(id) && flags_[id].special; }
  std::string_view TokenText(int32_t id) const override {
    return IsKnown(id) ? pieces_[id] : std::string_view();
  }
  const std::string& hash() const override { return hash_; }

 private:
  struct Flags {
    bool special = false, end = false;
  };
  // What one call of Encode has in hand.
  struct Work {
    std::vector<int32_t> ids;
    std::vector<uint32_t> word_ends;
    WordCache cache;
  };

  bool IsKnown(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < pieces_.size(); }

  absl::Status EncodeText(std::string_view text, Work* work) const {
    if (text.empty()) return absl::OkStatus();
    PALIMPSEST_RETURN_IF_ERROR(pre_tokenizer_->Split(text, &work->word_ends));
    uint32_t begin = 0;
    for (uint32_t end : work->word_ends) {
      const std::string_view word = text.substr(begin, end - begin);
      if (word.size() > kMaxWordBytes) {
        return InvalidArgument(
            "text has a word of {} bytes, at most {} are supported: break it up by white space or signs",
            word.size(), kMaxWordBytes);
      }
      EncodeWord(word, work);
      begin = end;
    }
    return absl::OkStatus();
  }

  void EncodeWord(std::string_view word, Work* work) const {
    const bool cached = word.size() <= WordCache::kMaxWordBytes;
    if (cached && work->cache.Find(word, &work->ids)) return;
    const size_t begin = work->ids.size();
    if (const auto whole = words_.find(word); whole != words_.end()) {
      work->ids.push_back(whole->second);
    } else {
      bpe_.Encode(word, &work->ids);
    }
    if (cached) work->cache.Add(word, std::span(work->ids).subspan(begin));
  }

  const std::string hash_;
  const int32_t bos_, eos_;
  const bool add_bos_;
  const std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  const Bpe bpe_;
  std::vector<std::string> pieces_;  // bytes by id
  std::vector<Flags> flags_;         // by id
  SpecialTokens special_tokens_;     // control and user-defined; views into pieces_
  IdByText words_;                   // taken whole before any merge; empty unless whole_words_first
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Create(TokenizerData data) {
  PALIMPSEST_ASSIGN_OR_RETURN(auto pre_tokenizer, PreTokenizer::Create(data.pre));
  if (data.types.empty()) data.types.assign(data.tokens.size(), kNormal);
  PALIMPSEST_ASSIGN_OR_RETURN(const IdByText index, CheckAndIndex(data));
  Bpe bpe;
  AddBytes(data, index, &bpe);
  PALIMPSEST_RETURN_IF_ERROR(AddMerges(data, index, &bpe));
  return std::make_shared<BpeTokenizer>(data, std::move(bpe), std::move(pre_tokenizer));
}

}  // namespace palimpsest
