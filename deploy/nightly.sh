#!/usr/bin/env bash
# What takes too long for every change: all tests under both sanitizers, 200 kills of a worker, each fuzz target for ten
# minutes, clang-tidy over all sources, and the benchmarks, printed and never judged. Some hours on 2 cores.
set -euo pipefail
# shellcheck source=deploy/prepare.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/prepare.sh"

case "${1:-}" in
  "") ;;
  -h | --help)
    printf 'usage: deploy/nightly.sh\n\nPALIMPSEST_TEST_FUZZ_SECONDS (600) for each fuzz target. Results stay in build/results.\n'
    exit 0
    ;;
  *)
    printf 'usage: deploy/nightly.sh\n' >&2
    exit 2
    ;;
esac

# clang-tidy 16: version 14 cannot read the ranges of libstdc++ 12.
require_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" clang-tidy-16 shellcheck
hand_back_to_caller "$(readlink -f -- "$0")" "$@"
require_writable_checkout

status=0
PALIMPSEST_TEST_SANITIZE_LABELS='.*' PALIMPSEST_TEST_FUZZ_SECONDS=${PALIMPSEST_TEST_FUZZ_SECONDS:-600} \
  PALIMPSEST_TEST_KILLS=${PALIMPSEST_TEST_KILLS:-200} \
  "$REPO/deploy/test.sh" all || status=1

say "clang-tidy over every source that the release build compiles"
(
  cd "$REPO"
  git -c safe.directory='*' ls-files '*.cc' | grep -Fx -f <(
    grep -o '"file": "[^"]*"' build/release/compile_commands.json | cut -d'"' -f4 | sed "s|^$REPO/||"
  ) | xargs -P "$(build_jobs)" -n 1 clang-tidy-16 --quiet \
    --extra-arg=-Wno-unknown-warning-option -p build/release
) || status=1

say "Benchmarks"
"$REPO/build/release/apps/palimpsest" bench prefill,decode --tokens 512,2K,8K --depth 0,4K || status=1
"$REPO/build/release/apps/palimpsest" bench compress --tokens 8K || status=1
# Beyond the window, in spans and through a pot: the time of a token must not grow.
"$REPO/build/release/apps/palimpsest" bench prefill --tokens 16K,128K --rounds 1 || status=1

say "Needles"
"$REPO/build/release/apps/palimpsest" niah --task single_noise --lengths 2K --seeds 2 --question both \
  --policy snapkv:budget=50% --policy infinipot:pot=50% --policy streaming:recent=50% || status=1

if [ "$status" -eq 0 ]; then say "nightly: all passed"; else say "nightly: something failed, see above"; fi
exit "$status"
