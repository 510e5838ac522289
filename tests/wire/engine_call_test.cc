// A whole worker, engine and all, over real gRPC: what crosses the wire is what the host says in process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "coordinator/worker_link.h"
#include "tests/testing/temporary_folder.h"
#include "tests/wire/scripted_host.h"
#include "tests/worker/tiny_engine.h"
#include "worker/worker_service.h"

namespace palimpsest::testing {
namespace {

class EngineCallTest : public ::testing::Test {
 protected:
  EngineCallTest() {
    const auto model = TinyModel({});
    const auto make = [model]() -> absl::StatusOr<std::unique_ptr<Engine>> {
      TinyEngineOptions options;
      options.chunk_tokens = 64;
      options.host_bytes = 64 << 20;
      return MakeTinyEngine(model, options);
    };
    host_ = WorkerHost::Start(make, {}).value();
    service_ = WorkerService::Start(*host_, {.listen = "unix:" + folder_.File("w"), .tls = {}}).value();
    service_->SetIncarnation(1);
    link_ = MakeGrpcWorkerLink(service_->address(), {}).value();
  }
  ~EngineCallTest() override {
    service_->Stop();
    host_->Stop();
  }

  static proto::GenerateRequest Request(int64_t prompt_tokens, int64_t max_tokens, uint64_t seed) {
    proto::GenerateRequest request;
    proto::PromptPart& part = *request.add_parts();
    for (const int32_t token : RandomTokens(prompt_tokens, seed)) part.add_tokens(token);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(1);
    request.mutable_sampling()->set_top_p(1);
    request.mutable_sampling()->set_repetition_penalty(1);
    request.mutable_sampling()->set_seed(seed);
    request.set_cache_domain(std::string(32, 'd'));
    request.set_ignore_end(true);
    request.set_logprobs(true);
    request.set_top_logprobs(3);
    return request;
  }

  // The answer's tokens with text and probabilities; times in the receipt differ from run to run.
  template <typename Caller>
  static std::vector<std::string> Tokens(Caller& caller, const proto::GenerateRequest& request) {
    std::vector<std::string> tokens;
    const auto listen = [&](const proto::GenerateEvent& event) {
      if (event.has_token()) tokens.push_back(event.token().SerializeAsString());
      if (event.has_done()) tokens.push_back(event.done().text() + event.done().finish_reason());
      return true;
    };
    const absl::Status status = caller.Generate(request, listen, CancelToken::Never());
    EXPECT_TRUE(status.ok()) << status;
    return tokens;
  }

  TemporaryFolder folder_;
  std::unique_ptr<WorkerHost> host_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<WorkerLink> link_;
};

TEST_F(EngineCallTest, AnswersAreThoseOfTheHostInProcess) {
  for (const uint64_t seed : {1, 2, 3}) {
    const proto::GenerateRequest request = Request(100, 40, seed);
    const std::vector<std::string> direct = Tokens(*host_, request);
    EXPECT_EQ(direct.size(), 41u);
    EXPECT_EQ(Tokens(*link_, request), direct);
  }
}

TEST_F(EngineCallTest, AnswersSideBySideAreThoseOfOneAlone) {
  std::vector<std::vector<std::string>> together(8), alone;
  for (uint64_t i = 0; i < together.size(); ++i) alone.push_back(Tokens(*host_, Request(80 + 10 * i, 30, i)));
  std::vector<std::thread> callers;
  for (uint64_t i = 0; i < together.size(); ++i) {
    callers.emplace_back([&, i] { together[i] = Tokens(*link_, Request(80 + 10 * i, 30, i)); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(together, alone);
}

TEST_F(EngineCallTest, CancelledCallLeavesNothingBehind) {
  CancelToken cancel;
  int tokens = 0;
  const auto listen = [&](const proto::GenerateEvent& event) {
    tokens += event.has_token() ? 1 : 0;
    if (tokens == 2) cancel.Set();
    return true;
  };
  EXPECT_EQ(link_->Generate(Request(100, 1800, 1), listen, cancel).code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return host_->Status().running() == 0; }));
  EXPECT_EQ(host_->Status().arena_pinned_bytes(), 0);
  const int64_t steps = host_->Status().steps();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(host_->Status().steps(), steps);
}

TEST_F(EngineCallTest, WrongRequestsAreRefusedAsInProcess) {
  proto::GenerateRequest request = Request(3000, 10, 1);  // the window is 2,048
  const auto listen = [](const proto::GenerateEvent&) { return true; };
  const absl::Status direct = host_->Generate(request, listen, CancelToken::Never());
  EXPECT_EQ(direct.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(link_->Generate(request, listen, CancelToken::Never()), direct);
}

// Some 8 million tokens: it is the engine that refuses them, not the wire.
TEST_F(EngineCallTest, APromptOfMillionsOfTokensFitsAMessage) {
  proto::GenerateRequest request = Request(10, 10, 1);
  request.mutable_parts(0)->mutable_tokens()->Resize(8 << 20, 128'000);  // 3 bytes each
  const absl::Status status = link_->Generate(
      request, [](const proto::GenerateEvent&) { return true; }, CancelToken::Never());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status), ::testing::HasSubstr("128000"));
}

}  // namespace
}  // namespace palimpsest::testing
