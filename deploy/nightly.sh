#!/usr/bin/env bash
# What takes too long for every change, in parts that can be run one by one: hours on 2 cores for all of them.
set -euo pipefail
# shellcheck source=deploy/prepare.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/prepare.sh"

usage() {
  cat <<'USAGE'
usage: deploy/nightly.sh [PART...]        default: all

  tests    style, and every test with the real model; ten million ids of blocks
  kills    200 kills of a worker, 200 of an ingest; 250 of a process that fills an SSD tier, 250 at its named places, and
           200 cuts of the power under it
  asan     every test under AddressSanitizer and UndefinedBehaviorSanitizer
  tsan     the unit and e2e tests under ThreadSanitizer: those with the real model and over every policy start no other threads
  fuzz     each fuzz target for two minutes
  tidy     clang-tidy over every source
  mutants  changes of storage and recall that the tests must notice
  bench    the benchmarks, printed and never judged
  needles  a small table of needles
  all      all of these

Environment: PALIMPSEST_TEST_FUZZ_SECONDS (120) for each fuzz target, PALIMPSEST_TEST_KILLS (200), PALIMPSEST_TEST_IDS (10000000) for the scan for collisions.
Exit status: 0 if nothing failed, 1 otherwise, 2 for wrong usage. Results stay in build/results.
USAGE
}

ALL=(tests kills asan tsan fuzz tidy mutants bench needles)
PARTS=()
for argument in "${@:-all}"; do
  case "$argument" in
    -h | --help) usage && exit 0 ;;
    tests | kills | asan | tsan | fuzz | tidy | mutants | bench | needles) PARTS+=("$argument") ;;
    all) PARTS+=("${ALL[@]}") ;;
    *)
      printf 'unknown part: %s\n' "$argument" >&2
      usage >&2
      exit 2
      ;;
  esac
done

# clang-tidy 16: version 14 cannot read the ranges of libstdc++ 12.
require_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" clang-tidy-16 shellcheck
hand_back_to_caller "$(readlink -f -- "$0")" "$@"
require_writable_checkout
PALIMPSEST="$REPO/build/release/apps/palimpsest"

part_tests() { PALIMPSEST_TEST_IDS=${PALIMPSEST_TEST_IDS:-10000000} "$REPO/deploy/test.sh" style unit; }
part_asan() { PALIMPSEST_TEST_SANITIZE_LABELS='.*' "$REPO/deploy/test.sh" asan; }
part_tsan() { PALIMPSEST_TEST_SANITIZE_LABELS='^(unit|e2e)' "$REPO/deploy/test.sh" tsan; }
part_fuzz() { PALIMPSEST_TEST_FUZZ_SECONDS=${PALIMPSEST_TEST_FUZZ_SECONDS:-120} "$REPO/deploy/test.sh" fuzz; }

part_kills() {
  local kills=${PALIMPSEST_TEST_KILLS:-200} test=$REPO/tests/e2e
  fetch_model
  python_environment "$REPO/tests/requirements.txt"
  build release palimpsest write_tiny_model storage_rocksdb_tier_crash_test
  export PALIMPSEST_TEST_KILLS=$kills PALIMPSEST_TEST_INGEST_KILLS=$kills PALIMPSEST_TEST_POWER_CUTS=$kills
  export PALIMPSEST_TEST_BINARY=$PALIMPSEST
  export PALIMPSEST_TEST_TINY_MODEL_WRITER="$REPO/build/release/tests/testing/write_tiny_model"
  PALIMPSEST_TEST_MODEL=$(model_path)
  export PALIMPSEST_TEST_MODEL
  "$REPO/build/python/bin/python" -B "$test/failover_test.py"
  "$REPO/build/release/tests/storage/storage_rocksdb_tier_crash_test" --gtest_filter='*Power*'
  # Ten hits of each named place.
  "$REPO/build/release/tests/storage/storage_rocksdb_tier_crash_test" --gtest_filter='*Kill*' --gtest_repeat=10
  "$REPO/build/python/bin/python" -B "$test/durable_test.py" \
    DurableTest.test_killed_while_it_ingests_it_loses_nothing_that_was_acknowledged
}

part_tidy() {
  # Only what is generated: clang-tidy compiles each source itself, without precompiled headers, so that a file that
  # forgot to include what it uses is an error here too.
  build debug palimpsest_services palimpsest_pages palimpsest_version
  cd "$REPO"
  git -c safe.directory='*' ls-files '*.cc' | grep -Fx -f <(
    grep -o '"file": "[^"]*"' build/debug/compile_commands.json | cut -d'"' -f4 | sed "s|^$REPO/||"
  ) | xargs -P "$(build_jobs)" -n 1 clang-tidy-16 --quiet \
    --extra-arg=-Wno-unknown-warning-option -p build/debug
}

part_mutants() { "$REPO/deploy/mutants.py"; }

part_bench() {
  fetch_model
  build release palimpsest
  "$PALIMPSEST" bench prefill,decode --tokens 512,2K,8K --depth 0,4K
  "$PALIMPSEST" bench compress --tokens 8K
  # Beyond the window, in spans and through a pot: the time of a token must not grow.
  "$PALIMPSEST" bench prefill --tokens 16K,128K --rounds 1
  "$PALIMPSEST" bench recall
  "$PALIMPSEST" bench tiers
}

part_needles() {
  fetch_model
  build release palimpsest
  "$PALIMPSEST" niah --task single_noise --lengths 2K --seeds 2 --question both \
    --policy snapkv:budget=50% --policy infinipot:pot=50% --policy streaming:recent=50%
  "$PALIMPSEST" niah --task facts_noise --lengths 2K --turns 5 --depths 10,30,50,70,90 --seeds 1 \
    --policy snapkv:budget=5% --recall none --recall slices
}

failed=()
for part in "${PARTS[@]}"; do
  say "Part $part"
  started=$SECONDS
  # Not in a condition: there bash would ignore set -e inside the part.
  set +e
  (set -e && "part_$part")
  status=$?
  set -e
  [ "$status" -eq 0 ] || failed+=("$part")
  note "$part: $((SECONDS - started)) s, status $status"
done
if [ ${#failed[@]} -gt 0 ]; then
  say "nightly: failed: ${failed[*]}"
  exit 1
fi
say "nightly: all passed: ${PARTS[*]}"
