// Tokenizer::FromGguf: reads tokenizer.ggml.* of a model file.
#include <algorithm>
#include <limits>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace palimpsest {
namespace {

// Control tokens that end an answer by convention, also in files that name only one of theirs as eos.
constexpr std::string_view kEndTexts[] = {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>",
                                          "</s>"};

// The number under `key`, -1 if the key is absent. What is no id of the vocabulary is found by
// Tokenizer::Create, so only what an int32_t cannot hold is refused here.
absl::StatusOr<int32_t> GetId(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return -1;
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key));
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument("{} is {}, which is no token id: the model file is damaged", key, id);
  }
  return static_cast<int32_t>(id);
}

absl::Status ReadVocabulary(const GgufFile& file, TokenizerData* data) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto tokens, file.GetStrings("tokenizer.ggml.tokens"));
  data->tokens.assign(tokens.begin(), tokens.end());
  PALIMPSEST_ASSIGN_OR_RETURN(const auto merges, file.GetStrings("tokenizer.ggml.merges"));
  data->merges.assign(merges.begin(), merges.end());
  if (!file.Has("tokenizer.ggml.token_type")) return absl::OkStatus();  // all normal
  PALIMPSEST_ASSIGN_OR_RETURN(const auto types, file.GetInts("tokenizer.ggml.token_type"));
  for (int64_t type : types) {  // what does not fit becomes -1, which Create refuses with the token's id
    data->types.push_back(type == static_cast<int8_t>(type) ? static_cast<int32_t>(type) : -1);
  }
  if (data->types.size() != data->tokens.size()) {
    return InvalidArgument("{} token types for {} tokens: the model file is damaged", data->types.size(),
                           data->tokens.size());
  }
  return absl::OkStatus();
}

absl::Status ReadEndTokens(const GgufFile& file, TokenizerData* data) {
  std::vector<int32_t>& ends = data->end_tokens;
  if (data->eos >= 0) ends.push_back(data->eos);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    PALIMPSEST_ASSIGN_OR_RETURN(const int32_t id, GetId(file, key));
    if (id >= 0) ends.push_back(id);
  }
  for (size_t id = 0; id < data->types.size(); ++id) {
    if (data->types[id] == kControl &&
        std::ranges::find(kEndTexts, data->tokens[id]) != std::end(kEndTexts)) {
      ends.push_back(static_cast<int32_t>(id));
    }
  }
  std::sort(ends.begin(), ends.end());  // one order for one set: the hash covers it
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return absl::OkStatus();
}

absl::StatusOr<TokenizerData> ReadData(const GgufFile& file) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view model, file.GetString("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return Unimplemented(
        "tokenizer.ggml.model is {}: only byte-level BPE ('gpt2') is supported, as in SmolLM2, Llama 3 and "
        "Qwen2; choose such a model",
        Quoted(model));
  }
  TokenizerData data;
  PALIMPSEST_ASSIGN_OR_RETURN(data.pre, file.GetString("tokenizer.ggml.pre"));
  PALIMPSEST_RETURN_IF_ERROR(ReadVocabulary(file, &data));
  PALIMPSEST_ASSIGN_OR_RETURN(data.bos, GetId(file, "tokenizer.ggml.bos_token_id"));
  PALIMPSEST_ASSIGN_OR_RETURN(data.eos, GetId(file, "tokenizer.ggml.eos_token_id"));
  PALIMPSEST_RETURN_IF_ERROR(ReadEndTokens(file, &data));
  data.add_bos =
      data.pre == "llama-bpe" && data.bos >= 0;  // Llama 3 wants it and its files often do not say so
  if (file.Has("tokenizer.ggml.add_bos_token")) {
    PALIMPSEST_ASSIGN_OR_RETURN(data.add_bos, file.GetBool("tokenizer.ggml.add_bos_token"));
  }
  return data;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  const auto with_path = [&file](const absl::Status& status) {
    const std::string message = Message(status);
    if (absl::IsNotFound(status)) {
      return InvalidArgument("{}; the tokenizer needs it: convert the model again with its tokenizer",
                             message);
    }
    if (message.starts_with(file.path())) return status;  // the reader's own name the file already
    return Error(status.code(), "{}: {}", file.path(), message);
  };
  absl::StatusOr<TokenizerData> data = ReadData(file);
  if (!data.ok()) return with_path(data.status());
  auto tokenizer = Create(*std::move(data));
  if (!tokenizer.ok()) return with_path(tokenizer.status());
  return tokenizer;
}

}  // namespace palimpsest
