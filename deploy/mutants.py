#!/usr/bin/env python3
"""Do the tests notice? Changes one place of the storage and recall code at a time, builds, and runs the tests that should fail.

usage: mutants.py [--only N,N] [--keep]

Works on a copy below build/mutants, never on the checkout. Each mutant is a change that a tired person could make: a check that is
gone, a bound that is off by one, a field that is left out of a name. Prints a line each, killed or survived, with the test that
killed it. Exit status 0 if the unchanged code passes and at least 95 % of the mutants are killed. Some 20 minutes on 2 cores.

Standard library only.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "build/mutants"
KILLED_SHARE = 0.95

ENVELOPE = "storage/envelope.cc"
IDS = "storage/block_id.cc"
MOVER = "storage/mover.cc"
VALUES = "storage/mover_values.cc"
OPENER = "storage/value_opener.cc"
TILES = "storage/mover_tiles.cc"
STORE = "storage/tiered_store.cc"
HOST = "storage/tier/host_tier.cc"
ROCKSDB = "storage/tier/rocksdb_directory.cc"
ROCKSDB_READ = "storage/tier/rocksdb_read.cc"
RECOVERY = "storage/tier/rocksdb_recovery.cc"
KEY = "storage/data_key.cc"
FORMAT = "storage/block_format.cc"
PRICE = "worker/load_price.cc"
READING = "worker/engine_reading.cc"
SLICES = "worker/recall/slices.cc"
RECALL = "worker/recall/recall.cc"
WHOLE = "worker/recall/whole_document.cc"
WORDS = "worker/recall/shared_words.cc"
INDEX = "worker/recall/document_index.cc"

ENVELOPE_TESTS = ("storage_envelope_test", "storage_mover_test")
MOVER_TESTS = ("storage_mover_test", "storage_tiered_store_test")
OPENER_TESTS = ("storage_value_opener_test",)
ROCKSDB_TESTS = ("storage_rocksdb_tier_test", "storage_rocksdb_tier_damage_test", "storage_rocksdb_tier_crash_test")
READING_TESTS = ("worker_reading_test",)
RECALL_TESTS = ("worker_slices_test", "worker_recall_test")

# File, what stands there (once), what stands there instead, tests in the order in which they run.
MUTANTS = [
    (ENVELOPE, "  if (Checksum(bytes) == header.tag) return absl::OkStatus();", "  return absl::OkStatus();", ENVELOPE_TESTS),
    (ENVELOPE, "  return tile.id == id &&", "  return", ENVELOPE_TESTS),
    (ENVELOPE, "  if (key->number() != header.key_number) {", "  if (false) {", ENVELOPE_TESTS),
    (ENVELOPE, "    if (require == Require::kAny) return absl::OkStatus();", "    return absl::OkStatus();", ENVELOPE_TESTS),
    (ENVELOPE, "  if (header.id != id) {", "  if (false) {", ENVELOPE_TESTS),
    (ENVELOPE, "  if (ValidGeometry(header.geometry) && unused_is_zero)", "  if (unused_is_zero)", ENVELOPE_TESTS),
    (ENVELOPE, "tile.geometry.kv_head == int64_t{part};", "tile.geometry.kv_head >= 0;", ENVELOPE_TESTS),
    (IDS, "  AppendInt32(&out, schema.attention_window);\n", "", ("storage_block_id_test",)),
    (IDS, "  AppendBytes(&out, schema.prefill_parameters);\n", "", ("storage_block_id_test",)),
    (IDS, "  AppendInteger(&message, static_cast<uint64_t>(start_position), 8);\n", "", ("storage_block_id_test",)),
    (MOVER, "  if (!status.ok() && tries_left > 1) {", "  if (false) {", MOVER_TESTS),
    (MOVER, "  if (ssd_->Contains(key)) return true;\n", "", MOVER_TESTS),
    (MOVER, "  waiting_.emplace(key, std::pair(shared, parts));\n", "", MOVER_TESTS),
    (OPENER, "int64_t{parts_} != TilesOfValue(opened->geometry) || ", "", MOVER_TESTS),
    (OPENER, " || opened_ != parts_", "", OPENER_TESTS),
    (OPENER, "    opened_ = 0;\n", "", OPENER_TESTS),
    (OPENER, "  } else if (opened->geometry != NextGeometry()) {\n    return false;\n", "", OPENER_TESTS),
    (ROCKSDB_READ, "    if (ScanTogether(of_file, take_of_file)) continue;\n", "    ScanTogether(of_file, take_of_file);\n    continue;\n",
     ROCKSDB_TESTS),
    (VALUES, "  std::erase(prefetched_, key);  // else", "  // else", MOVER_TESTS),
    (TILES, "!InPlace(request.key.id, request.part, *tile)", "false", MOVER_TESTS),
    (TILES, "if (waiting == waiting_.end() || request.part >= waiting->second.second)", "if (waiting == waiting_.end())",
     MOVER_TESTS),
    (STORE, "    if (!OpenTile(id, GeometryOf(tile, rows), envelope, nullptr, nullptr).ok()) opens = false;", "    (void)envelope;",
     ("storage_tiered_store_test",)),
    (STORE, "  if (--sealed->pins == 0) sealed->unused", "  if (--sealed->pins <= 1) sealed->unused", ("storage_tiered_store_test",)),
    (STORE, "    if (found->second->below && mover_->Contains(id)) Drop", "    Drop", ("storage_tiered_store_test",)),
    (HOST, "    if (XXH3_64bits(bytes.data(), bytes.size()) != buffer.checksums[part]) return false;\n", "    (void)bytes;\n",
     ("storage_tier_contract_test", "storage_host_tier_test")),
    (HOST, "      if (entry->buffer.use_count() > 1) continue;\n", "", ("storage_host_tier_test", "storage_tier_contract_test")),
    (ROCKSDB, "stats_.used_bytes + bytes - stats_.capacity_bytes", "stats_.used_bytes - stats_.capacity_bytes",
     ("storage_tier_contract_test", "storage_rocksdb_tier_test")),
    (RECOVERY, "(kinds & ~found->second.kinds) == 0", "true", ROCKSDB_TESTS),
    (RECOVERY, "(seen.insert(value->key).second ? kept : older)", "kept", ROCKSDB_TESTS),
    (KEY, "  ++counter_;\n", "", ("storage_data_key_test",)),
    (KEY, "counter_ == kCounterEnd || forks_ != Forks()", "counter_ == kCounterEnd", ("storage_data_key_test",)),
    (FORMAT, "RoundUp((high", "RoundDown((high", ("storage_block_format_test",)),
    (FORMAT, "    if (!std::isfinite(low) || !std::isfinite(step) || step < 0)", "    if (!std::isfinite(low))",
     ("storage_block_format_test",)),
    (PRICE, "  if (!IsFresh(price, now)) price.count = 0;\n", "", ("worker_load_price_test",)),
    (PRICE, "price.last[i].seconds > slowest.seconds", "price.last[i].seconds < slowest.seconds", ("worker_load_price_test",)),
    (READING, "  if (c.needs.future > 0) what += fmt::format(\", queries from {}\", c.needs.sink);",
     "  if (c.needs.future > 0) what += \", queries\";", READING_TESTS),
    (READING, "/*squares=*/row >= group,", "/*squares=*/false,", READING_TESTS),
    (SLICES, "best[s] >= least", "best[s] > least", RECALL_TESTS),
    (SLICES, "x != y ? x > y : a < b", "x > y", RECALL_TESTS),
    (WORDS, "    if (*best < least) break;\n", "    if (*best <= 0) break;\n", RECALL_TESTS),
    (WORDS, "std::max(weight, kHalfWeightTokens / (kHalfWeightTokens + behind))", "1.0", RECALL_TESTS),
    (RECALL, "  for (const int32_t place : places) strike(place);\n", "", RECALL_TESTS),
    (RECALL, "i < slice_; ++i) strike(", "i < 1; ++i) strike(", RECALL_TESTS),
    (RECALL, "      std::erase(head.wanted, m.slice);\n", "", RECALL_TESTS),
    (RECALL, "  if (head.slice_at[place] >= 0) head.place_of.erase(head.slice_at[place]);\n", "", RECALL_TESTS),
    (RECALL, "      if (resident != head.places.end() && *resident == place + i) {", "      if (false) {", RECALL_TESTS),
    (WHOLE, "  Empty(layer);\n", "", RECALL_TESTS),
    (WHOLE, "tiles / kSplit * kSplit", "tiles", RECALL_TESTS),
    (INDEX, "    index->counts_[b] = static_cast<int32_t>(block.rows);", "    index->counts_[b] = 1;", RECALL_TESTS),
]


def run(command: list, quiet: bool = True) -> bool:
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=WORK / "source", stdout=output, stderr=subprocess.STDOUT if quiet else None).returncode == 0


def prepare():
    source = WORK / "source"
    source.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for name in files:
        here, there = ROOT / name, source / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists() or here.read_bytes() != there.read_bytes():
            shutil.copy(here, there)  # and is newer than what was built of a mutant that an interrupted run left there
    options = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    if not run(["cmake", "-G", "Ninja", "-S", ".", "-B", "../build", "-DCMAKE_BUILD_TYPE=Release",
                # What a change leaves unused is no reason to stop.
                "-DCMAKE_CXX_FLAGS=-w", *options]):
        sys.exit("mutants.py: configuring the copy in build/mutants failed")


def build(tests) -> bool:
    return run(["cmake", "--build", "../build", f"-j{os.cpu_count() or 1}", "--target", *tests])


def first_failure(tests) -> str:
    """The first of these tests that fails; empty: none."""
    for test in tests:
        found = list((WORK / "build/tests").rglob(test))
        binary = next(one for one in found if one.is_file() and os.access(one, os.X_OK))
        try:
            if subprocess.run([binary, "--gtest_brief=1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=300).returncode != 0:
                return test
        except subprocess.TimeoutExpired:
            return test + " (hangs)"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of mutants, with commas; default all")
    parser.add_argument("--keep", action="store_true", help="leave build/mutants for the next run")
    options = parser.parse_args()
    numbers = [int(one) for one in options.only.split(",")] if options.only else range(1, len(MUTANTS) + 1)
    for file, before, _, _ in MUTANTS:
        if (ROOT / file).read_text().count(before) != 1:
            sys.exit(f"mutants.py: {file} does not have exactly once: {before.strip()}")
    prepare()
    everything = sorted({test for number in numbers for test in MUTANTS[number - 1][3]})
    if not build(everything):
        sys.exit("mutants.py: the unchanged copy does not build")
    if failed := first_failure(everything):
        sys.exit(f"mutants.py: the unchanged code fails {failed}")
    killed = 0
    for number in numbers:
        file, before, after, tests = MUTANTS[number - 1]
        path = WORK / "source" / file
        whole, started = path.read_text(), time.monotonic()
        path.write_text(whole.replace(before, after))
        try:
            if not build(tests):
                sys.exit(f"mutants.py: mutant {number} does not compile, so no test can notice it: {file}: {before.strip()}")
            by = first_failure(tests)
        finally:
            path.write_text(whole)
        killed += by != ""
        print(f"{number:3} {'killed by ' + by if by else 'SURVIVED':<50} {time.monotonic() - started:4.0f} s  {file}: "
              f"{before.strip()[:70]}", flush=True)
    share = killed / len(numbers)
    print(f"{killed} of {len(numbers)} mutants killed, {100 * share:.0f} %")
    if not options.keep:
        shutil.rmtree(WORK)
    sys.exit(0 if share >= KILLED_SHARE else 1)


if __name__ == "__main__":
    main()
