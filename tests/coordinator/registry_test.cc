#include "coordinator/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class RegistryTest : public testing::Test {
 protected:
  static proto::Hello Hello() {
    proto::Hello hello;
    hello.set_version("0.1.0");
    hello.set_protocol(kWorkerProtocol);
    hello.set_cluster_id("here");
    hello.set_model_hash("aaaa");
    hello.set_key_schema("bf16");
    hello.set_address("unix:/w");
    hello.set_arena_bytes(1 << 20);
    hello.set_bytes_per_token(16);
    hello.set_window_tokens(2048);
    return hello;
  }
  std::string Refusal(const proto::Hello& hello) {
    const auto welcome = registry_.Join(hello, nullptr);
    EXPECT_EQ(welcome.status().code(), absl::StatusCode::kFailedPrecondition) << welcome.status();
    return Message(welcome.status());
  }

  ManualClock clock_;
  Registry registry_{{.version = "0.1.0", .cluster_id = "here", .model_hash = "aaaa"}, clock_};
};

TEST_F(RegistryTest, EachJoinIsANewIncarnation) {
  const auto first = registry_.Join(Hello(), nullptr);
  const auto second = registry_.Join(Hello(), nullptr);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GT(second->incarnation(), first->incarnation());
  EXPECT_EQ(first->lease_millis(), 6000);
  EXPECT_EQ(registry_.Alive().size(), 2u);
  registry_.Leave(first->incarnation());
  EXPECT_EQ(registry_.Alive().size(), 1u);
  EXPECT_EQ(registry_.joins(), 2);
}

TEST_F(RegistryTest, ARefusalNamesBothValues) {
  proto::Hello hello = Hello();
  hello.set_model_hash("bbbb");
  EXPECT_THAT(Refusal(hello), AllOf(HasSubstr("unix:/w"), HasSubstr("'bbbb'"), HasSubstr("'aaaa'")));
  hello = Hello();
  hello.set_version("0.2.0");
  EXPECT_THAT(Refusal(hello), AllOf(HasSubstr("'0.2.0'"), HasSubstr("'0.1.0'")));
  hello = Hello();
  hello.set_protocol(7);
  EXPECT_THAT(Refusal(hello), AllOf(HasSubstr("'7'"), HasSubstr("'1'")));
  hello = Hello();
  hello.set_cluster_id("there");
  EXPECT_THAT(Refusal(hello), AllOf(HasSubstr("'there'"), HasSubstr("'here'")));
  EXPECT_EQ(registry_.joins(), 0);
}

TEST_F(RegistryTest, TheFirstWorkersNumericsBindTheOthersEvenAfterItLeft) {
  const auto first = registry_.Join(Hello(), nullptr);
  ASSERT_TRUE(first.ok());
  registry_.Leave(first->incarnation());
  proto::Hello hello = Hello();
  hello.set_key_schema("int8");
  EXPECT_THAT(Refusal(hello), AllOf(HasSubstr("'int8'"), HasSubstr("'bf16'")));
}

TEST_F(RegistryTest, SilenceForALeaseEndsAnIncarnation) {
  const uint64_t quiet = registry_.Join(Hello(), nullptr)->incarnation();
  const uint64_t loud = registry_.Join(Hello(), nullptr)->incarnation();
  clock_.Advance(std::chrono::seconds(4));
  EXPECT_TRUE(registry_.Beat(loud, {}));
  EXPECT_EQ(registry_.Expire(), 0);
  clock_.Advance(std::chrono::seconds(4));
  EXPECT_EQ(registry_.Expire(), 1);
  EXPECT_FALSE(registry_.Beat(quiet, {}));
  EXPECT_TRUE(registry_.Beat(loud, {}));
}

TEST_F(RegistryTest, AWorkerThatLeavesIsNotAliveAndDoesNotComeBackByBeating) {
  const uint64_t worker = registry_.Join(Hello(), nullptr)->incarnation();
  proto::Beat beat;
  beat.set_leaving(true);
  EXPECT_TRUE(registry_.Beat(worker, beat));
  EXPECT_TRUE(registry_.Alive().empty());
  EXPECT_TRUE(registry_.Beat(worker, {}));
  EXPECT_TRUE(registry_.Alive().empty());
}

TEST_F(RegistryTest, AWaitEndsWhenOneJoinsAtItsLimitAndWhenCancelled) {
  CancelToken cancel;
  EXPECT_FALSE(registry_.WaitForOne(std::chrono::milliseconds(1), cancel));
  std::thread joins([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(registry_.Join(Hello(), nullptr).ok());
  });
  EXPECT_TRUE(registry_.WaitForOne(std::chrono::minutes(1), cancel));
  joins.join();
  cancel.Set();
  EXPECT_FALSE(registry_.WaitForOne(std::chrono::minutes(1), cancel));
}

}  // namespace
}  // namespace palimpsest
