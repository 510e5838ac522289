// The coordinator over real engines that go away at random points and come back without what they had
// computed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "coordinator/coordinator.h"
#include "proto/base/status.h"
#include "tests/coordinator/serving_fixture.h"
#include "tests/worker/tiny_engine.h"
#include "worker/worker_host.h"

namespace palimpsest::testing {
namespace {

using ::testing::IsEmpty;

// A worker process in this one. Once it dies, all of its calls break off and nothing more is heard of it.
class MortalLink final : public WorkerLink {
 public:
  MortalLink(std::unique_ptr<WorkerHost> host, std::function<int64_t()> lifetime_events,
             std::function<void()> on_death)
      : host_(std::move(host)), lifetime_(lifetime_events()), on_death_(std::move(on_death)) {}

  absl::Status Generate(const proto::GenerateRequest& request, const Listener& listener,
                        const CancelToken& cancel) override {
    const absl::Status status = host_->Generate(
        request,
        [&](const proto::GenerateEvent& event) {
          if (++events_ == lifetime_) on_death_();
          return lifetime_ >= 0 && events_ >= lifetime_ ? false : listener(event);
        },
        cancel);
    if (lifetime_ < 0 || events_ < lifetime_ || cancel.IsSet()) return status;
    return Error(absl::StatusCode::kUnavailable, "the worker has died");
  }
  const std::string& address() const override { return address_; }
  const WorkerHost& host() const { return *host_; }

 private:
  const std::string address_ = "mortal";
  const std::unique_ptr<WorkerHost> host_;
  const int64_t lifetime_;  // events; -1: for ever
  const std::function<void()> on_death_;
  std::atomic<int64_t> events_{0};
};

class FailoverTest : public ::testing::Test {
 protected:
  // Workers live for this many events each.
  void Start(std::function<int64_t()> lifetime) {
    lifetime_ = std::move(lifetime);
    registry_ = std::make_shared<Registry>(
        Registry::Identity{.version = "test", .cluster_id = "test", .model_hash = "model"}, RealClock());
    AddWorker();
    auto created =
        Coordinator::Create({.config = Serving::TestConfig(),
                             .model = Model(),
                             .open_catalog = [this] { return Catalog::Open(folder_.path() + "/data"); },
                             .registry = registry_});
    ASSERT_TRUE(created.ok()) << created.status();
    coordinator_ = std::move(*created);
  }

  ServedModel Model() const {
    ServedModel model{.name = "tiny", .hash = "model", .window_tokens = 2048, .bytes_per_token = 1};
    model.tokenizer = *Tokenizer::FromGguf(*file_);
    const auto chat_template = ChatTemplate::Parse(std::string(*file_->GetString("tokenizer.chat_template")));
    model.planner = std::make_shared<const PromptPlanner>(
        *PromptPlanner::Create(model.tokenizer, *chat_template, {},
                               {.model = "tiny", .window_tokens = 2048, .question_bytes = 1 << 20}));
    return model;
  }

  void AddWorker() {
    auto host = WorkerHost::Start(
        [this]() -> absl::StatusOr<std::unique_ptr<Engine>> {
          TinyEngineOptions options;
          options.threads = 1;
          options.chunk_tokens = 32;
          return MakeTinyEngine(file_, options);
        },
        {});
    ASSERT_TRUE(host.ok()) << host.status();
    proto::Hello hello;
    hello.set_version("test");
    hello.set_protocol(kWorkerProtocol);
    hello.set_cluster_id("test");
    hello.set_model_hash("model");
    hello.set_key_schema((*host)->facts().key_schema);
    hello.set_address("mortal");
    hello.set_arena_bytes((*host)->facts().arena_bytes);
    hello.set_bytes_per_token((*host)->facts().bytes_per_token);
    hello.set_window_tokens((*host)->facts().window_tokens);
    auto incarnation = std::make_shared<std::atomic<uint64_t>>(0);
    auto link = std::make_shared<MortalLink>(std::move(*host), lifetime_, [this, incarnation] {
      while (*incarnation == 0) std::this_thread::yield();
      registry_->Leave(*incarnation);
      ++deaths_;
      AddWorker();
    });
    const auto welcome = registry_->Join(hello, link);
    ASSERT_TRUE(welcome.ok()) << welcome.status();
    *incarnation = welcome->incarnation();
  }

  AnswerRequest Question(int i) const {
    AnswerRequest request =
        Ask("Question number " + std::to_string(i) + " about it.", 24, static_cast<uint64_t>(i));
    request.sampling.set_repetition_penalty(1);
    request.sampling.set_temperature(i % 2 == 0 ? 0 : 1);
    request.documents = {document_};
    return request;
  }
  std::string Answer(int i) {
    RecordingSink sink;
    const absl::Status status = coordinator_->Answer(Question(i), sink, CancelToken::Never());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_THAT(sink.wrong, IsEmpty());
    return sink.texts[0];
  }
  void AddDocument() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37) + ". ";
    const auto added = coordinator_->AddDocument("a.txt", text, "", Coordinator::Ingest::kNever);
    ASSERT_TRUE(added.ok()) << added.status();
    document_ = added->info.id;
  }

  const std::shared_ptr<const GgufFile> file_ = TinyModel({});
  TemporaryFolder folder_;
  std::function<int64_t()> lifetime_;
  std::atomic<int64_t> deaths_{0};
  std::shared_ptr<Registry> registry_;
  std::unique_ptr<Coordinator> coordinator_;
  std::string document_;
};

TEST_F(FailoverTest, AnswersAreTheSameBitForBitWhateverDies) {
  constexpr int kQuestions = 24;
  Start([] { return -1; });
  AddDocument();
  std::vector<std::string> expected;
  for (int i = 0; i < kQuestions; ++i) expected.push_back(Answer(i));
  EXPECT_NE(expected[0], expected[1]);
  coordinator_ = nullptr;

  std::mt19937_64 random(5);
  std::mutex mu;
  Start([&]() -> int64_t {
    const std::lock_guard<std::mutex> lock(mu);
    return 60 + static_cast<int64_t>(random() % 80);  // so that prompts of three clients can be read
  });
  AddDocument();
  std::vector<std::thread> clients;
  std::atomic<int> next{0}, wrong{0};
  for (int client = 0; client < 3; ++client) {
    clients.emplace_back([&] {
      for (int i = next++; i < kQuestions; i = next++) {
        if (Answer(i) != expected[static_cast<size_t>(i)]) ++wrong;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(deaths_, 3);
  std::printf("%d answers over %d deaths\n", kQuestions, static_cast<int>(deaths_));
}

}  // namespace
}  // namespace palimpsest::testing
