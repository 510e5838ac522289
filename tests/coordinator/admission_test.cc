#include "coordinator/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AdmissionTest : public testing::Test {
 protected:
  // One that waits with this need.
  Admission::Id Arrive(const std::string& tenant, Admission::Need need) {
    const auto id = admission_.Enter(tenant, capacity_, now_);
    EXPECT_TRUE(id.ok()) << id.status();
    EXPECT_TRUE(admission_.SetNeed(*id, need, capacity_).ok());
    return *id;
  }
  bool Runs(Admission::Id id) {
    admission_.Grant(capacity_, now_);
    return admission_.running(id);
  }
  void Audit() const {
    EXPECT_EQ(admission_.running_requests() + admission_.waiting_requests(), 0);
    EXPECT_EQ(admission_.running_bytes(), 0);
    EXPECT_EQ(admission_.waiting_tokens(), 0);
  }

  Admission admission_{{.running = 2, .waiting = 3, .waiting_tokens = 1000, .waiting_seconds = 100}};
  Admission::Capacity capacity_{
      .bytes = 100, .prefill_tokens_per_second = 100, .decode_tokens_per_second = 10};
  TimePoint now_{seconds(1)};
};

TEST_F(AdmissionTest, AsManyRunAsMayAndTheNextFollowsWhenOneLeaves) {
  const auto a = Arrive("", {.prompt_tokens = 10, .bytes = 1});
  const auto b = Arrive("", {.prompt_tokens = 10, .bytes = 1});
  const auto c = Arrive("", {.prompt_tokens = 10, .bytes = 1});
  EXPECT_TRUE(Runs(a) && Runs(b));
  EXPECT_FALSE(Runs(c));
  admission_.Leave(a);
  EXPECT_TRUE(Runs(c));
  admission_.Leave(b);
  admission_.Leave(c);
  Audit();
}

// Each of those who wait looks for itself, many times a second.
TEST_F(AdmissionTest, AQueueOfThousandsThatDoesNotFitIsLookedThroughQuickly) {
  Admission many({.running = 8, .waiting = 4096, .waiting_tokens = 1 << 30, .waiting_seconds = 100});
  const auto arrive = [&](int64_t bytes) {
    const auto id = many.Enter("", capacity_, now_);
    EXPECT_TRUE(id.ok() && many.SetNeed(*id, {.prompt_tokens = 1, .bytes = bytes}, capacity_).ok());
    return *id;
  };
  const auto first = arrive(60);
  many.Grant(capacity_, now_);
  for (int i = 0; i < 4000; ++i) arrive(60);
  const auto last = arrive(40);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) many.Grant(capacity_, now_);
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(5));
  EXPECT_TRUE(many.running(first) && many.running(last));
}

TEST_F(AdmissionTest, AFullQueueRefusesWithItsNumbers) {
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Runs(Arrive("", {.prompt_tokens = 10, .bytes = 1})));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Runs(Arrive("", {.prompt_tokens = 100, .answer_tokens = 20})));
  const absl::Status refused = admission_.Enter("", capacity_, now_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  // 300 tokens at 100 a second and 60 at 10: half of 9 s.
  EXPECT_EQ(Message(refused),
            "3 requests with 300 prompt tokens wait, limits.waiting is 3; come again in 5 s");
  EXPECT_EQ(RetryAfter(refused), 5);
}

TEST_F(AdmissionTest, OneTenantLeavesAQuarterOfThePlacesToOthers) {
  Admission places({.running = 1, .waiting = 7, .waiting_tokens = 1000, .waiting_seconds = 100});
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(places.Enter("flood", capacity_, now_).ok()) << i;
  const auto refused = places.Enter("flood", capacity_, now_);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused.status()), AllOf(HasSubstr("6 requests"), HasSubstr("limits.waiting, 7")));
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
  EXPECT_TRUE(places.Enter("other", capacity_, now_).ok());
  EXPECT_TRUE(places.Enter("other", capacity_, now_).ok());
  EXPECT_THAT(Message(places.Enter("third", capacity_, now_).status()), HasSubstr("8 requests"));
}

TEST_F(AdmissionTest, TooManyTokensInTheQueueAreRefusedButOneAloneMayBeLong) {
  const auto a = admission_.Enter("", capacity_, now_);
  EXPECT_TRUE(admission_.SetNeed(*a, {.prompt_tokens = 5000}, capacity_).ok());
  const auto b = admission_.Enter("", capacity_, now_);
  const absl::Status refused = admission_.SetNeed(*b, {.prompt_tokens = 7}, capacity_);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused), AllOf(HasSubstr("5000 prompt tokens wait, this one has 7"),
                                      HasSubstr("limits.waiting_tokens is 1000")));
  EXPECT_TRUE(RetryAfter(refused).has_value());
  admission_.Leave(*b);
  admission_.Leave(*a);
  Audit();
}

TEST_F(AdmissionTest, TheTenantWithTheFewestTokensComesFirst) {
  const auto greedy = Arrive("a", {.prompt_tokens = 100, .bytes = 90});
  EXPECT_TRUE(Runs(greedy));
  const auto second = Arrive("a", {.prompt_tokens = 100, .bytes = 90});
  const auto modest = Arrive("b", {.prompt_tokens = 150, .bytes = 90});
  admission_.Leave(greedy);
  admission_.Grant(capacity_, now_);
  EXPECT_TRUE(admission_.running(second)) << "a has 100 tokens left, b has 150";
  const auto third = Arrive("a", {.prompt_tokens = 100, .bytes = 90});
  admission_.Leave(second);
  const auto fourth = Arrive("a", {.prompt_tokens = 100, .bytes = 90});
  admission_.Grant(capacity_, now_);
  EXPECT_TRUE(admission_.running(modest)) << "a has 200 by now";
  EXPECT_FALSE(admission_.running(third) || admission_.running(fourth));
}

TEST_F(AdmissionTest, WaitingMakesUpForManyTokens) {
  const auto first = Arrive("", {.prompt_tokens = 1, .bytes = 100});
  EXPECT_TRUE(Runs(first));
  const auto old = Arrive("large", {.prompt_tokens = 900, .bytes = 100});
  now_ += seconds(2);
  const auto fresh = Arrive("small", {.prompt_tokens = 1, .bytes = 100});
  admission_.Leave(first);
  EXPECT_TRUE(Runs(old)) << "2 s count as 2,048 tokens";
  EXPECT_FALSE(admission_.running(fresh));
}

TEST_F(AdmissionTest, WhatDoesNotFitLetsOthersPassForAWhileOnly) {
  const auto running = Arrive("", {.prompt_tokens = 1, .bytes = 60});
  EXPECT_TRUE(Runs(running));
  const auto large = Arrive("a", {.prompt_tokens = 10, .bytes = 60});
  const auto small = Arrive("b", {.prompt_tokens = 20, .bytes = 10});
  EXPECT_FALSE(Runs(large));
  EXPECT_TRUE(admission_.running(small));
  admission_.Leave(small);
  now_ += Admission::kPassedOver;
  const auto late = Arrive("c", {.prompt_tokens = 1, .bytes = 10});
  EXPECT_FALSE(Runs(late)) << "by now the large one has its turn";
  admission_.Leave(running);
  EXPECT_TRUE(Runs(large));
  EXPECT_TRUE(admission_.running(late));
}

TEST_F(AdmissionTest, OneAloneIsLetInWhateverItsSizeButNotWithoutAWorker) {
  const auto huge = Arrive("", {.prompt_tokens = 1, .bytes = 1'000, .slots = 8});
  const Admission::Capacity nobody;
  admission_.Grant(nobody, now_);
  EXPECT_FALSE(admission_.running(huge));
  const absl::Status late = admission_.WaitedTooLong(huge, nobody, now_ + seconds(100));
  EXPECT_THAT(Message(late),
              AllOf(HasSubstr("no worker is there"), HasSubstr("limits.waiting_seconds is 100")));
  EXPECT_TRUE(Runs(huge));
}

TEST_F(AdmissionTest, EveryTenantIsServedWhateverTheOthersSend) {
  std::map<std::string, int64_t> served;
  std::map<Admission::Id, std::string> inside;
  uint64_t random = 1;
  for (int step = 0; step < 20'000; ++step) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    now_ += std::chrono::milliseconds(50);
    const std::string tenant = (random >> 33) % 8 == 0 ? "small" : "loud";
    if (const auto id = admission_.Enter(tenant, capacity_, now_); id.ok()) {
      const auto tokens = static_cast<int64_t>((random >> 40) % 200 + 1);
      const absl::Status fits =
          admission_.SetNeed(*id, {.prompt_tokens = tokens, .bytes = tokens / 3}, capacity_);
      if (fits.ok())
        inside[*id] = tenant;
      else
        admission_.Leave(*id);
    }
    admission_.Grant(capacity_, now_);
    for (auto i = inside.begin(); i != inside.end();) {
      const bool ends = admission_.running(i->first) && (random >> 50) % 4 == 0;
      if (ends) {
        ++served[i->second];
        admission_.Leave(i->first);
      }
      i = ends ? inside.erase(i) : std::next(i);
    }
    ASSERT_LE(admission_.running_bytes(), capacity_.bytes);
  }
  EXPECT_GT(served["small"], 500);
  EXPECT_GT(served["loud"], 500);
  for (const auto& [id, tenant] : inside) admission_.Leave(id);
  Audit();
}

}  // namespace
}  // namespace palimpsest
