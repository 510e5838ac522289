#include "proto/base/status.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

TEST(Status, RetryAfterStaysWithCopies) {
  const absl::Status status =
      WithRetryAfter(Error(absl::StatusCode::kUnavailable, "{} requests wait", 7), 12);
  const absl::Status copy = status;
  EXPECT_EQ(RetryAfter(copy), 12);
  EXPECT_EQ(Message(copy), "7 requests wait");
}

TEST(Status, OtherErrorsDoNotGoAwayByWaiting) {
  EXPECT_EQ(RetryAfter(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(RetryAfter(InvalidArgument("no")), std::nullopt);
}

}  // namespace
}  // namespace palimpsest
