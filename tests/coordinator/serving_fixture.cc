#include "tests/coordinator/serving_fixture.h"

#include <atomic>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest::testing {
namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}<start>{{ m.role }}:{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant:{% endif %}";

}  // namespace

ServedModel ByteModel(int64_t window) {
  ServedModel model{.name = "bytes", .hash = "model", .window_tokens = window, .bytes_per_token = 64};
  model.tokenizer = ByteTokenizer();
  auto chat_template = ChatTemplate::Parse(kTemplate);
  PALIMPSEST_CHECK(chat_template.ok(), "{}", Message(chat_template.status()));
  auto planner =
      PromptPlanner::Create(model.tokenizer, *chat_template, {},
                            {.model = "bytes", .window_tokens = window, .question_bytes = 1 << 20});
  PALIMPSEST_CHECK(planner.ok(), "{}", Message(planner.status()));
  model.planner = std::make_shared<const PromptPlanner>(std::move(*planner));
  return model;
}

// Notes calls that overlap.
class RecordingSink::Serialized {
 public:
  explicit Serialized(RecordingSink& sink) : sink_(sink) {
    if (++sink_.inside_ != 1) sink_.wrong.push_back("two calls at once");
  }
  ~Serialized() { --sink_.inside_; }

 private:
  RecordingSink& sink_;
};

bool RecordingSink::OnStart(int64_t prompt, const std::vector<std::string>& ids) {
  const Serialized call(*this);
  if (++starts != 1) wrong.push_back("started twice");
  prompt_tokens = prompt;
  documents = ids;
  return !stop_at_start;
}

bool RecordingSink::OnPrefill(int64_t done_tokens, int64_t total_tokens) {
  const Serialized call(*this);
  if (starts != 1) wrong.push_back("prefill before the start");
  if (done_tokens <= prefilled_ || done_tokens > total_tokens) wrong.push_back("prefill went back");
  if (tokens[0] != 0) wrong.push_back("prefill after a token");
  prefilled_ = done_tokens;
  return true;
}

bool RecordingSink::OnToken(int64_t choice, const proto::TokenEvent& token) {
  const Serialized call(*this);
  if (starts != 1 || done.count(choice) != 0) wrong.push_back("a token outside of its answer");
  if (token.sequence() != tokens[choice]) {
    wrong.push_back(fmt::format("token {} where {} was next", token.sequence(), tokens[choice]));
  }
  ++tokens[choice];
  texts[choice] += token.text();
  if (on_token) on_token();
  return stop_after_tokens < 0 || tokens[choice] < stop_after_tokens;
}

bool RecordingSink::OnDone(int64_t choice, const proto::DoneEvent& event) {
  const Serialized call(*this);
  if (done.count(choice) != 0) wrong.push_back("done twice");
  texts[choice] += event.text();
  done[choice] = event;
  return true;
}

AnswerRequest Ask(const std::string& question, int64_t max_tokens, uint64_t seed) {
  AnswerRequest request;
  request.prompt = std::vector<ChatMessage>{{.role = "user", .content = question}};
  request.sampling.set_max_tokens(max_tokens);
  request.sampling.set_seed(seed);
  request.sampling.set_top_p(1);
  request.request_id = "test";
  return request;
}

std::string FakeAnswer(const proto::GenerateRequest& request) {
  std::string text;
  for (int64_t place = 0; place < request.sampling().max_tokens(); ++place) {
    text += FakeText(FakeToken(request, place));
  }
  return text;
}

Config Serving::TestConfig() {
  Config config;
  config.limits.waiting_seconds = 20;
  return config;
}

Serving::Serving(FakeWorkerLink::Scripts scripts, Config config, int64_t arena_bytes)
    : cluster(std::move(scripts), arena_bytes) {
  auto created =
      Coordinator::Create({.config = std::move(config),
                           .model = ByteModel(),
                           .open_catalog = [this] { return Catalog::Open(folder.path() + "/data"); },
                           .registry = cluster.registry()});
  PALIMPSEST_CHECK(created.ok(), "{}", Message(created.status()));
  coordinator = std::move(*created);
}

}  // namespace palimpsest::testing
