// Whether this build is instrumented, for the few tests that instrumentation makes meaningless.
#pragma once

#if defined(__clang__)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PALIMPSEST_TEST_SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PALIMPSEST_TEST_SANITIZED 1
#endif

namespace palimpsest {

#ifdef PALIMPSEST_TEST_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace palimpsest
