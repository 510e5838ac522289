#include "coordinator/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "proto/base/status.h"
#include "tests/coordinator/serving_fixture.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;
using Script = FakeWorkerLink::Script;

class DispatcherTest : public ::testing::Test {
 protected:
  void Start(FakeWorkerLink::Scripts scripts, Duration wait = std::chrono::seconds(20)) {
    cluster_ = std::make_unique<FakeCluster>(std::move(scripts));
    dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::Options{
        .registry = cluster_->registry(), .worker_wait = wait, .on_failover = [this] { ++failovers_; }});
  }
  static proto::GenerateRequest Request(int64_t max_tokens) {
    proto::GenerateRequest request;
    proto::PromptPart& part = *request.add_parts();
    for (int32_t i = 0; i < 40; ++i) part.add_tokens(i * 7);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_seed(3);
    request.set_request_id("test");
    return request;
  }
  // The answer, checked for what must never happen to it.
  absl::Status Run(const proto::GenerateRequest& request, const CancelToken& cancel = CancelToken::Never()) {
    text_.clear();
    done_.Clear();
    int64_t next = 0, prefilled = 0;
    return dispatcher_->Run(
        request,
        [&](const proto::GenerateEvent& event) {
          if (event.has_prefill()) {
            EXPECT_GT(event.prefill().done_tokens(), prefilled);
            EXPECT_EQ(next, 0) << "prefill after a token";
            prefilled = event.prefill().done_tokens();
          } else if (event.has_token()) {
            EXPECT_EQ(event.token().sequence(), next);
            ++next;
            text_ += event.token().text();
          } else {
            done_ = event.done();
          }
          return !stop_ || next < 3;
        },
        cancel);
  }

  std::unique_ptr<FakeCluster> cluster_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::atomic<int64_t> failovers_{0};
  std::string text_;
  proto::DoneEvent done_;
  bool stop_ = false;
};

TEST_F(DispatcherTest, AStreamSurvivesAThousandDeathsAtAnyPoint) {
  std::mt19937_64 random(7);
  std::mutex mu;
  int64_t deaths = 0;
  Start([&](const proto::GenerateRequest& request) {
    const std::lock_guard<std::mutex> lock(mu);
    Script script{.prefill_events = 4};
    const int64_t left = request.sampling().max_tokens() - request.generated_size();
    // Few enough in a row without a token to be no poison.
    const uint64_t kind = left == 0 ? 7 : random() % 8;
    if (kind == 0)
      script.die_after_prefills = static_cast<int64_t>(random() % 5);
    else if (kind < 7)
      script.die_after_tokens = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(left));
    if (script.die_after_tokens >= left && random() % 2 == 0) script.die_after_tokens = -1;
    deaths += script.die_after_tokens >= 0 || script.die_after_prefills >= 0;
    return script;
  });
  int64_t answers = 0;
  while (failovers_ < 1000) {
    const proto::GenerateRequest request = Request(1 + answers % 40);
    const absl::Status status = Run(request);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(text_, FakeAnswer(request));
    ASSERT_EQ(done_.usage().completion_tokens(), request.sampling().max_tokens());
    ++answers;
  }
  EXPECT_EQ(failovers_, deaths);
  EXPECT_EQ(cluster_->running(), 0);
}

TEST_F(DispatcherTest, TheReceiptSaysWhatWasSurvived) {
  Start([](const proto::GenerateRequest& request) {
    return Script{.die_after_tokens = request.generated_size() == 0 ? 5 : -1};
  });
  ASSERT_TRUE(Run(Request(9)).ok());
  ASSERT_EQ(done_.receipt().degraded_size(), 1);
  EXPECT_EQ(done_.receipt().degraded(0), "worker lost; went on after 5 tokens on another");
  EXPECT_EQ(failovers_, 1);
}

TEST_F(DispatcherTest, TokensThatComeAgainAreDroppedAndAGapIsAnError) {
  Start([](const proto::GenerateRequest& request) {
    return request.generated_size() == 0 ? Script{.die_after_tokens = 5} : Script{.repeat_from = 2};
  });
  const proto::GenerateRequest request = Request(9);
  ASSERT_TRUE(Run(request).ok());
  EXPECT_EQ(text_, FakeAnswer(request));

  Start([](const auto&) { return Script{.skip_token = 4}; });
  const absl::Status gap = Run(request);
  EXPECT_EQ(gap.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(gap), HasSubstr("token 5 of the answer where 4 was next"));
}

TEST_F(DispatcherTest, ARequestThatEndsFiveWorkersIsGivenUp) {
  Start([](const auto&) { return Script{.die_after_prefills = 1}; });
  const absl::Status poison = Run(Request(9));
  EXPECT_EQ(poison.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(poison), HasSubstr("5 workers were lost on this request"));
  EXPECT_EQ(cluster_->links().size(), 6u) << "the sixth is spared";

  Start([](const proto::GenerateRequest& request) {
    return Script{.die_after_tokens = request.generated_size() < 4 ? 4 - request.generated_size() : 0};
  });
  EXPECT_THAT(Message(Run(Request(9))), HasSubstr("after 4 tokens of its answer"));
}

TEST_F(DispatcherTest, WithoutAWorkerItWaitsAsLongAsItMay) {
  Start([](const auto&) { return Script{}; }, std::chrono::milliseconds(50));
  cluster_->RemoveAll();
  const absl::Status late = Run(Request(9));
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryAfter(late).has_value());
  EXPECT_THAT(Message(late), HasSubstr("0 are alive"));

  Start([](const auto&) { return Script{.refuse = Error(absl::StatusCode::kUnavailable, "full")}; },
        std::chrono::milliseconds(200));
  const absl::Status full = Run(Request(9));
  EXPECT_EQ(full.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(full), HasSubstr("the last one said: full"));
}

TEST_F(DispatcherTest, AWorkerThatComesInTimeIsUsed) {
  Start([](const auto&) { return Script{}; });
  cluster_->RemoveAll();
  std::thread comes([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    cluster_->AddWorker();
  });
  EXPECT_TRUE(Run(Request(9)).ok());
  comes.join();
}

// As a slow client holds up the events, or a worker's own queue the first of them.
TEST_F(DispatcherTest, ALongSilenceBeforeADeathDoesNotShortenTheWaitForTheNextWorker) {
  std::atomic<int> calls{0};
  Start([&](const auto&) { return Script{.die_after_prefills = calls++ == 0 ? 1 : -1}; },
        std::chrono::seconds(1));
  cluster_->restart = false;
  std::thread comes;
  bool silent = false;
  const absl::Status status = dispatcher_->Run(
      Request(9),
      [&](const proto::GenerateEvent&) {
        if (!std::exchange(silent, true)) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1200));
          comes = std::thread([this] {
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
            cluster_->AddWorker();
          });
        }
        return true;
      },
      CancelToken::Never());
  EXPECT_TRUE(status.ok()) << status;
  comes.join();
}

TEST_F(DispatcherTest, AWorkersVerdictOnTheRequestIsFinal) {
  Start([](const auto&) { return Script{.refuse = InvalidArgument("token id 9 is not in the vocabulary")}; });
  EXPECT_EQ(Run(Request(9)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster_->links()[0]->requests().size(), 1u);
}

TEST_F(DispatcherTest, WhoDoesNotListenAnyMoreCancels) {
  Start([](const auto&) { return Script{.never_ends = true}; });
  stop_ = true;
  EXPECT_EQ(Run(Request(9)).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(cluster_->running(), 0);

  stop_ = false;
  CancelToken cancel;
  std::thread leaves([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    cancel.Set();
  });
  EXPECT_EQ(Run(Request(9), cancel).code(), absl::StatusCode::kCancelled);
  leaves.join();
}

}  // namespace
}  // namespace palimpsest::testing
