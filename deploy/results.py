#!/usr/bin/env python3
"""The needle table of docs/results.md: policies and budgets, lengths, question hidden and visible.

usage: results.py --model FILE.gguf [--haystack FILE] [--palimpsest PATH] [--lengths 2048,3584] [--seeds 20] [--chunk 1]
                  [--task single_prose] [--depths 0,25,50,75,100] [--turns N] [--question hidden|visible|both]
                  [--policy NAME:key=value,...]... [--recall NAME:key=value,...]... [--oracle] [--state FOLDER] [--jobs N]

Each cell of the table has depths x --seeds samples, of --turns questions each; of conversations a second table has the
share of right answers turn by turn, and the share of answers that are word for word those of full. The work is done in chunks of --chunk seeds of one length; each
finished chunk is a file below --state, so an interrupted run goes on when it is started again, as long as program, model,
text and policies are the same. --jobs N chunks run at once, each on its share of the cores (default: one for each core):
scores do not depend on threads, and threads that never wait for each other waste nothing. At the end the table is printed
as Markdown: date, processor, commit and command line with it.

Without --haystack the text is the King James Bible of Debian's package bible-kjv (`apt-get install bible-kjv`).
Standard library only.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import shlex
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPTHS = "0,25,50,75,100"
POLICIES = [f"{name}={share}%" for name in ("snapkv:budget", "infinipot:pot", "streaming:recent", "random:budget")
            for share in (25, 50)]
Z = 1.959963984540054  # 97.5 % of the normal distribution lie below
MIB = 1 << 20


def wilson(right: float, n: int) -> tuple[float, float]:
    """Where the true share lies with 95 % confidence."""
    share, scale = right / n, 1 / (1 + Z * Z / n)
    middle = scale * (share + Z * Z / (2 * n))
    half = scale * Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def bible(path: pathlib.Path) -> pathlib.Path:
    """The text verse by verse, without the verses' names."""
    if not shutil.which("bible"):
        sys.exit("results.py: give --haystack FILE, or install Debian's bible-kjv, which has a text")
    run = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    lines = run.stdout.decode().splitlines()
    path.write_text("\n".join(line.split(" ", 1)[1] for line in lines if " " in line) + "\n")
    return path


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


class Chunks:
    """One run of the command for each length and few seeds; what ran before is read from its file."""

    def __init__(self, options, haystack: pathlib.Path, version: str):
        self.options, self.haystack = options, haystack
        self.command = [str(options.palimpsest), "niah", "--model", str(options.model), "--task", options.task, "--haystack",
                        str(haystack), "--depths", options.depths, "--turns", str(options.turns), "--question",
                        options.question, "--json"]
        for policy in options.policy:
            self.command += ["--policy", policy]
        for recall in options.recall:
            self.command += ["--recall", recall]
        if options.oracle:
            self.command += ["--oracle"]
        settings = sorted(one for one in os.environ.items()
                          if one[0].startswith("PALIMPSEST_") and not one[0].startswith(("PALIMPSEST_TEST_", "PALIMPSEST_DATA")))
        made_of = json.dumps([version, sha256(options.palimpsest), sha256(options.model), sha256(haystack), settings, options.task,
                              options.depths, options.turns, options.question, options.policy, options.recall, options.oracle])
        self.folder = options.state / hashlib.sha256(made_of.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = dict(os.environ)
        if options.jobs > 1:  # pinned, all would share the first cores
            self.environment |= {"PALIMPSEST_THREADS_COUNT": str(max(1, (os.cpu_count() or 1) // options.jobs)),
                                 "PALIMPSEST_THREADS_PIN": "false"}

    def run_all(self, lengths: list[int], seeds: int) -> list[dict]:
        step = self.options.chunk
        chunks = [(length, first, min(step, seeds + 1 - first)) for length in lengths for first in range(1, seeds + 1, step)]
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            return list(pool.map(lambda chunk: self.run(*chunk), chunks))  # if one fails, what has not begun never does

    def run(self, length: int, first: int, seeds: int) -> dict:
        path = self.folder / f"{length}-{first}-{seeds}.json"
        if not path.exists():
            print(f"results.py: length {length}, seeds {first} to {first + seeds - 1}", file=sys.stderr, flush=True)
            run = subprocess.run(self.command + ["--lengths", str(length), "--seeds", str(seeds), "--first-seed", str(first)],
                                 stdout=subprocess.PIPE, env=self.environment)
            if run.returncode != 0:
                raise RuntimeError(f"palimpsest niah ended with status {run.returncode}; what was finished is kept in {self.folder}")
            unfinished = path.with_suffix(".tmp")
            unfinished.write_bytes(run.stdout)
            os.replace(unfinished, path)
        return json.loads(path.read_text())


class Row:
    """All samples of one length, policy and question."""

    def __init__(self):
        self.n = collections.Counter()      # by depth
        self.right = collections.Counter()  # by depth
        self.turns = {}                     # n and right by turn
        self.sums = collections.Counter()   # of what is a mean in a cell
        self.first = []                     # seconds to the first token, medians of cells
        self.peak = self.kept_all = self.as_full = self.degraded = 0

    def add(self, cell: dict):
        self.n[cell["depth"]] += cell["n"]
        self.right[cell["depth"]] += cell["n"] * cell["correct"]
        turn = self.turns.setdefault(cell["turn"], [0, 0.0])
        turn[0] += cell["n"]
        turn[1] += cell["n"] * cell["correct"]
        for field in ("prompt_tokens", "resident_tokens", "resident_bytes", "output_tokens"):
            self.sums[field] += cell["n"] * cell[field]
        self.sums["seen"] += cell["n"] * (cell["needle_seen"] or 0)
        for tier, slices in cell["recalled_slices"].items():
            self.sums[tier] += cell["n"] * slices
        self.first.append(cell["first_token_seconds"])
        self.peak = max(self.peak, cell["device_bytes_peak"])
        for field in ("kept_all", "as_full", "degraded"):
            setattr(self, field, getattr(self, field) + cell[field])

    def mean(self, field: str) -> float:
        return self.sums[field] / self.n.total()

    def score(self) -> str:
        low, high = wilson(self.right.total(), self.n.total())
        depth = min(self.n, key=lambda one: (self.right[one] / self.n[one], one))
        return (f"{100 * self.right.total() / self.n.total():.0f} ({100 * low:.0f} to {100 * high:.0f}), "
                f"{100 * self.right[depth] / self.n[depth]:.0f} at {depth:g} %")


def how(cell: dict) -> str:
    """The policy, and what comes back for a question."""
    return cell["policy"] if cell["recall"] == "none" else f"{cell['policy']} + {cell['recall']}"


def turns_table(rows: dict[tuple, Row]) -> list[str]:
    turns = sorted(next(iter(rows.values())).turns)
    lines = ["", "% correct turn by turn, and answers that are word for word those of `full`, to this question and those before it:",
             "", "| policy | length, question | " + " | ".join(f"turn {turn}" for turn in turns) + " | as full |",
             "| --- |" + " --- |" * (len(turns) + 2)]
    for (policy, length, question), row in rows.items():
        of_turns = " | ".join(f"{100 * right / n:.0f}" for n, right in (row.turns[turn] for turn in turns))
        lines.append(f"| `{policy}` | {length:,}, {question} | {of_turns} | {row.as_full} of {row.n.total()} |")
    return lines


def markdown(reports: list[dict], heading: str) -> str:
    rows: dict[tuple, Row] = {}
    for report in reports:
        for cell in report["cells"]:
            rows.setdefault((how(cell), cell["length"], cell["question"]), Row()).add(cell)
    policies, columns = list(dict.fromkeys(key[0] for key in rows)), list(dict.fromkeys(key[1:] for key in rows))
    counts = sorted({row.n.total() for row in rows.values()})
    lines = [heading, "", f"Answers in each cell: {' or '.join(map(str, counts))}. % correct (95 % interval), worst depth:", "",
             "| policy | " + " | ".join(f"{length:,}, {question}" for length, question in columns) + " |",
             "| --- |" + " --- |" * len(columns)]
    for policy in policies:
        scores = [rows[policy, *column].score() if (policy, *column) in rows else "" for column in columns]
        lines.append(f"| `{policy}` | " + " | ".join(scores) + " |")
    if any(len(row.turns) > 1 for row in rows.values()):
        lines += turns_table(rows)
    lines += ["", "What stayed on the device, means of one answer; slices that recall brought from host memory and from SSD, and "
              "the share of the needle that the answer's first token could see, over layers and heads:", "",
              "| policy | length, question | prompt tokens | resident tokens | resident MiB | peak MiB | answer tokens | kept all "
              "| first token, s | slices | needle seen | degraded |", "| --- |" + " --- |" * 11]
    for (policy, length, question), row in rows.items():
        lines.append(f"| `{policy}` | {length:,}, {question} | {row.mean('prompt_tokens'):.0f} | {row.mean('resident_tokens'):.0f} | "
                     f"{row.mean('resident_bytes') / MIB:.1f} | {row.peak / MIB:.1f} | {row.mean('output_tokens'):.1f} | "
                     f"{row.kept_all} of {row.n.total()} | {statistics.median(row.first):.2f} | "
                     f"{row.mean('host'):.0f} + {row.mean('ssd'):.0f} | {100 * row.mean('seen'):.0f} % | "
                     f"{row.degraded} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--haystack", type=pathlib.Path)
    parser.add_argument("--palimpsest", type=pathlib.Path, default=ROOT / "build/release/apps/palimpsest")
    parser.add_argument("--lengths", default="2048,3584")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--task", default="single_prose")
    parser.add_argument("--depths", default=DEPTHS)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--question", default="both", choices=("hidden", "visible", "both"))
    parser.add_argument("--policy", action="append")
    parser.add_argument("--recall", action="append")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--state", type=pathlib.Path, default=ROOT / "build/needles")
    options = parser.parse_args()
    options.policy = options.policy or POLICIES
    options.recall = options.recall or ["none"]
    options.state.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([options.palimpsest, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    chunks = Chunks(options, options.haystack or bible(options.state / "bible.txt"), version)
    try:
        reports = chunks.run_all([int(length) for length in options.lengths.split(",")], options.seeds)
    except RuntimeError as error:
        sys.exit(f"results.py: {error}")
    run = reports[0]["run"]
    # Where files lie on this machine says nothing to others.
    arguments = [pathlib.Path(one).name if one.startswith("/") else one for one in sys.argv[1:]]
    limit = f"answers of at most {run['max_tokens']} tokens" if run["max_tokens"] else "answers as long as the task lets them be"
    heading = (f"{time.strftime('%Y-%m-%d', time.gmtime())}, {processor()}, {os.cpu_count()} threads, {run['model']} "
               f"({options.model.name}), {run['numerics']}, {limit}, {version}, text "
               f"{chunks.haystack.name} (SHA-256 {sha256(chunks.haystack)[:12]}).\n"
               f"`{shlex.join(['deploy/results.py', *arguments])}`")
    print(markdown(reports, heading), end="")


if __name__ == "__main__":
    main()
