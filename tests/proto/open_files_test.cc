#include "proto/base/open_files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace palimpsest {
namespace {

TEST(OpenFilesTest, TheLimitIsRaisedAsFarAsItGoesAndNotBeyond) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit low{64, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(static_cast<rlim_t>(RaiseOpenFilesLimit()), before.rlim_max);
  EXPECT_EQ(static_cast<rlim_t>(RaiseOpenFilesLimit()), before.rlim_max) << "a second time";
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  EXPECT_EQ(after.rlim_max, before.rlim_max);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace palimpsest
