// A running `palimpsest serve`, as `ask --server` speaks to it.
#include <utility>

#include "apps/niah/own_answerer.h"
#include "apps/server_client.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kDocumentName = "niah sample";

class ServerAnswerer final : public OwnAnswerer {
 public:
  // `keeper` is not cancelled: an interrupted run knows what it put there, and takes it away.
  ServerAnswerer(std::unique_ptr<ServerClient> client, std::unique_ptr<ServerClient> keeper,
                 std::string model, NiahPrompter prompter)
      : OwnAnswerer(std::move(prompter)),
        client_(std::move(client)),
        keeper_(std::move(keeper)),
        model_(std::move(model)) {}
  ~ServerAnswerer() override { Remove().IgnoreError(); }  // a server that is gone has been told of already

  std::string name() const override { return model_; }
  std::string numerics() const override { return ""; }
  absl::StatusOr<NiahReading> Read(const NiahSample& sample) override {
    PALIMPSEST_RETURN_IF_ERROR(Put(sample));
    return NiahReading();
  }
  absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                const NiahPolicy& policy, bool visible) override {
    PALIMPSEST_RETURN_IF_ERROR(Put(sample));
    Question question{.documents = {document_},
                      .messages = NiahMessages(sample, answers),
                      .options = prompter_.OptionsOf(sample, answers.size(), policy, visible),
                      .sampling = GreedySampling(sample.answer_tokens),
                      .on_text = nullptr};
    PALIMPSEST_ASSIGN_OR_RETURN(Answer answer, client_->Ask(question));
    return TrialOf(std::move(answer.text), answer.usage, answer.receipt);
  }
  absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork>) override {
    return std::optional<double>();
  }

 private:
  // Makes the sample's text the document that is asked about, in place of the one before. One that somebody
  // else put there is theirs, and stays.
  absl::Status Put(const NiahSample& sample) {
    if (!document_.empty() && sample.context == text_) return absl::OkStatus();
    PALIMPSEST_RETURN_IF_ERROR(Remove());
    PALIMPSEST_ASSIGN_OR_RETURN(IngestedDocument put,
                                keeper_->Put(std::string(kDocumentName), sample.context));
    made_ = !put.already_known;
    document_ = put.info.id;
    text_ = sample.context;
    PALIMPSEST_ASSIGN_OR_RETURN(put, client_->WaitUntilRead(std::move(put)));
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t tokens, prompter_.CountContextTokens(sample));
    if (put.info.tokens == tokens) return absl::OkStatus();
    return FailedPrecondition(
        "a text of {} tokens has {} at the server, which runs {}: give --model the same model", tokens,
        put.info.tokens, model_);
  }
  absl::Status Remove() {
    const DocumentId document = std::exchange(document_, {});
    return document.empty() || !made_ ? absl::OkStatus() : keeper_->Delete(document).status();
  }

  const std::unique_ptr<ServerClient> client_, keeper_;
  const std::string model_;
  std::string text_;  // of the document
  DocumentId document_;
  bool made_ = false;  // by this run
};

}  // namespace

absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeServerAnswerer(Model& model, PrefillChoice prefill,
                                                                 const Config& config,
                                                                 const ClientOptions& options) {
  ClientOptions keep = options;
  keep.cancel = &CancelToken::Never();
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<ServerClient> client, ServerClient::Open(config, options));
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<ServerClient> keeper, ServerClient::Open(config, keep));
  PALIMPSEST_ASSIGN_OR_RETURN(std::string name, client->ModelName());
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  return std::make_unique<ServerAnswerer>(
      std::move(client), std::move(keeper), std::move(name),
      NiahPrompter(std::move(planner), model.tokenizer(), prefill, GreedySampling(0)));
}

}  // namespace palimpsest
