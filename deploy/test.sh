#!/usr/bin/env bash
# Every test, from a fresh Debian 12 machine: prepares like the quick start, then runs the parts named (or all) and
# sums them up. Budget on 2 cores: under 60 minutes for everything.
set -euo pipefail
# shellcheck source=deploy/prepare.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/prepare.sh"

usage() {
  cat <<'USAGE'
usage: deploy/test.sh [PART...]        default: all

  style   clang-format over every C++ file, shellcheck over the scripts where it is installed
  unit    the release build and every test, with the real model
  asan    tests labelled 'unit' under AddressSanitizer and UndefinedBehaviorSanitizer
  tsan    tests labelled 'threads' under ThreadSanitizer
  fuzz    each fuzz target with its seeds, 20 s each
  all     all of these

Installs what is missing (as root or with sudo): Debian packages, the model into the data folder
($PALIMPSEST_DATA_DIR, else ~/.local/share/palimpsest), Python packages into build/python.
Environment: PALIMPSEST_TEST_FUZZ_SECONDS (20) for each target; PALIMPSEST_TEST_SANITIZE_LABELS, a regular expression of ctest
labels, instead of 'unit' and 'threads' (deploy/nightly.sh takes all).
Exit status: 0 if nothing failed, 1 otherwise, 2 for wrong usage. Results stay in build/results.
USAGE
}

PARTS=()
for argument in "${@:-all}"; do
  case "$argument" in
    -h | --help) usage && exit 0 ;;
    style | unit | asan | tsan | fuzz) PARTS+=("$argument") ;;
    all) PARTS+=(style unit asan tsan fuzz) ;;
    *)
      printf 'unknown part: %s\n' "$argument" >&2
      usage >&2
      exit 2
      ;;
  esac
done

RESULTS="$REPO/build/results"
# record PART NAME passed|failed|skipped [REASON]: a result that does not come from ctest.
record() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-}" >>"$RESULTS/other.tsv"; }

# run_ctest PART PRESET [ctest arguments]: prints as it goes, leaves JUnit XML for the summary.
run_ctest() {
  local part=$1 preset=$2
  shift 2
  (cd "$REPO/build/$preset" && ctest -j2 --output-on-failure --no-tests=ignore \
    --output-junit "$RESULTS/$part.xml" "$@")
}

part_style() {
  local files=() scripts=()
  mapfile -t files < <(cd "$REPO" && git -c safe.directory='*' ls-files '*.cc' '*.h' '*.cu' '*.cuh')
  if (cd "$REPO" && clang-format-14 --dry-run -Werror "${files[@]}"); then
    record style "clang-format of ${#files[@]} files" passed
  else
    record style "clang-format of ${#files[@]} files" failed "run clang-format-14 -i on the files named above"
  fi
  mapfile -t scripts < <(cd "$REPO" && git -c safe.directory='*' ls-files '*.sh' .ci/run)
  if ! command -v shellcheck >/dev/null; then
    record style "shellcheck of ${#scripts[@]} scripts" skipped "shellcheck is not installed"
  elif (cd "$REPO" && shellcheck -x "${scripts[@]}"); then
    record style "shellcheck of ${#scripts[@]} scripts" passed
  else
    record style "shellcheck of ${#scripts[@]} scripts" failed "its findings stand above"
  fi
}

part_unit() {
  build release
  run_ctest unit release
}

part_asan() {
  local labels=${PALIMPSEST_TEST_SANITIZE_LABELS:-(^|,)unit(,|\$)} target=palimpsest_tests_unit
  [ -z "${PALIMPSEST_TEST_SANITIZE_LABELS:-}" ] || target=all
  build asan "$target"
  ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
    run_ctest asan asan -L "$labels"
}

part_tsan() {
  local labels=${PALIMPSEST_TEST_SANITIZE_LABELS:-(^|,)threads(,|\$)} target=palimpsest_tests_threads
  [ -z "${PALIMPSEST_TEST_SANITIZE_LABELS:-}" ] || target=all
  build tsan "$target"
  # Debian's libraries are not instrumented: what happens between two of their own calls is not ours to report.
  TSAN_OPTIONS=ignore_noninstrumented_modules=1:second_deadlock_stack=1 run_ctest tsan tsan -L "$labels"
}

# fuzz_one TARGET SECONDS: the seeds are read only; what is found grows in build/asan/corpus.
fuzz_one() {
  local target=$1 seconds=$2 name corpus log seeds=()
  name=$(basename "$target" _fuzz)
  corpus="$REPO/build/asan/corpus/$name"
  log="$RESULTS/fuzz-$name.log"
  mkdir -p "$corpus" "$REPO/build/asan/crashes"
  if [ -d "$REPO/tests/fuzz/seeds/$name" ]; then seeds=("$REPO/tests/fuzz/seeds/$name"); fi
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$REPO/build/asan/crashes/$name-" "$corpus" "${seeds[@]}" >"$log" 2>&1; then
    note "$name: $(grep -o 'stat::number_of_executed_units: *[0-9]*' "$log" | grep -o '[0-9]*$') inputs in $seconds s"
    record fuzz "$name" passed
  else
    tail -n 40 "$log"
    record fuzz "$name" failed "build/results/fuzz-$name.log; the input is in build/asan/crashes"
  fi
  [ ${#seeds[@]} -gt 0 ] || record fuzz "seeds of $name" failed "tests/fuzz/seeds/$name is missing"
}

part_fuzz() {
  local seconds=${PALIMPSEST_TEST_FUZZ_SECONDS:-20} targets=() target
  build asan palimpsest_fuzz_targets
  mapfile -t targets < <(find "$REPO/build/asan/tests" -name '*_fuzz' -type f -perm -u+x | sort)
  if [ ${#targets[@]} -eq 0 ]; then
    record fuzz targets skipped "there is no tests/fuzz/*_fuzz"
    return
  fi
  say "Fuzzing ${#targets[@]} targets, $seconds s each, $(build_jobs) at once"
  for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(build_jobs)" ]; do wait -n || true; done
    fuzz_one "$target" "$seconds" &
  done
  wait
}

say "Palimpsest tests: ${PARTS[*]}"
require_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
hand_back_to_caller "$(readlink -f -- "$0")" "$@"
require_writable_checkout
fetch_model
python_environment "$REPO/tests/requirements.txt"
PALIMPSEST_TEST_MODEL=$(model_path)
PALIMPSEST_TEST_PYTHON="$REPO/build/python/bin/python"
export PALIMPSEST_TEST_MODEL PALIMPSEST_TEST_PYTHON

rm -rf "$RESULTS"
mkdir -p "$RESULTS"
: >"$RESULTS/other.tsv"
for part in "${PARTS[@]}"; do
  say "Part $part"
  started=$SECONDS
  # Not in a condition: there bash would ignore set -e inside the part.
  set +e
  (set -e && "part_$part")
  status=$?
  set -e
  printf '%s\t%s\t%s\n' "$part" $((SECONDS - started)) "$status" >>"$RESULTS/parts.tsv"
done

say "Results"
"$PALIMPSEST_TEST_PYTHON" -B "$REPO/deploy/summarize.py" "$RESULTS"
