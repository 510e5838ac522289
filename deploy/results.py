#!/usr/bin/env python3
"""The needle tables of docs/results.md: policies and budgets, lengths, question hidden and visible.

usage: results.py --model FILE.gguf --all [--into docs/results.md] [--induction 64K,256K] [any of the flags below]
       results.py --model FILE.gguf --policies [--into docs/results.md] [any of the flags below]
       results.py --model FILE.gguf --attention [--into docs/results.md] [--passages 4] [--passage-bytes 9000]
                  [--haystack FILE] [--palimpsest PATH] [--state FOLDER] [--jobs N]
       results.py --model FILE.gguf [--haystack FILE] [--palimpsest PATH] [--lengths 2048,3584] [--seeds 20]
                  [--task single_prose] [--depths 0,25,50,75,100] [--turns N] [--question hidden|visible|both]
                  [--policy NAME:key=value,...]... [--recall NAME:key=value,...]... [--oracle] [--state FOLDER] [--jobs N]

--all makes the main table (MAIN says of what) and that of the induction model (induction.py), and writes both into the file
--into, between the lines that say so. --policies does so with the table of every policy at three budgets (FIELD), --attention
with what the same keep of attention on plain text (attention.py). Without any of them the table of the flags is printed.

Each cell of the table has depths x --seeds samples, of --turns questions each; of conversations a second table has the
share of right answers turn by turn, and the share of answers that are word for word those of full. One run of `palimpsest niah` for
each length and seed keeps what it has finished below --state (its --resume), so an interrupted run goes on when it is started
again, as long as program, model, text and policies are the same. --jobs N runs go on at once, each on its share of the
cores (default: one for each core): scores do not depend on threads, and threads that never wait for each other waste
nothing. With the Markdown come date, processor, commit and command line.

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import attention
import induction

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPTHS = "0,25,50,75,100"
POLICIES = [f"{name}={share}%" for name in ("snapkv:budget", "infinipot:pot", "streaming:recent", "random:budget")
            for share in (25, 50)]
# The main table: a quarter of the text stays, and where recall can be, as many tokens as a quarter of the shortest come back.
MAIN = {"lengths": "1024,2048,4096,8192", "seeds": 3, "depths": DEPTHS, "question": "both",
        "policy": ["snapkv:budget=25%", "infinipot:pot=25%", "lookm:budget=25%", "streaming:recent=25%", "h2o:heavy=15%,recent=10%"],
        "recall": ["none", "slices:budget=256"]}
ONE = {"lengths": "2048,3584", "seeds": 20, "depths": DEPTHS, "question": "both", "policy": POLICIES, "recall": ["none"]}


SHARES = (10, 25, 50)  # percent


def of_share(share: int) -> list[str]:
    """Every policy, each with so many percent of the text."""
    # Of a tenth of a short text there is no room for half of the pot beside the catalyst.
    pot = f"infinipot:pot={share}%" + (",keep=4%" if share < 20 else "")
    two = f"heavy={share * 3 // 5}%,recent={share - share * 3 // 5}%"  # of h2o
    return [f"snapkv:budget={share}%", pot, f"streaming:recent={share}%", f"random:budget={share}%", f"h2o:{two}",
            f"h2o:{two},normalize=queries", f"lookm:budget={share}%,recent={share // 2}%", *(f"{name}:budget={share}%" for name in (
                "tova", "roco", "knorm", "keydiff", "expected", "sirllm", "pyramidkv", "adakv", "chunkkv", "criticalkv", "kvzip"))]


def as_chosen(policy: str) -> str:
    """Without what is merged into the tokens that stay: an audit of tokens does not see it."""
    return policy + ",merge=none" if policy.startswith("lookm") else policy


# The table of every policy; and what follows any of them, on one that keeps much and one that keeps little of a needle.
FIELD = {"seeds": 10, "depths": DEPTHS, "question": "both", "recall": ["none"], "policy": [
    *(policy for share in SHARES for policy in of_share(share)), "snapkv:budget=25%,target=0.999", "snapkv:budget=25%,merge=values",
    "kvzip:budget=25%,merge=values", "h2o:heavy=15%,recent=10%,decode=evict", "tova:budget=25%,decode=evict", "roco:budget=25%,decode=evict"]}
FIELD_TEXTS = {"single_prose": "1536,3584", "niah_multikey_1": "1536"}
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


def state_folder(options, haystack: pathlib.Path, version: str, arguments: list[str]) -> pathlib.Path:
    """Where what is finished is kept, of runs that are alike in all that answers depend on."""
    settings = sorted(one for one in os.environ.items()
                      if one[0].startswith("PALIMPSEST_") and not one[0].startswith(("PALIMPSEST_TEST_", "PALIMPSEST_DATA")))
    made_of = json.dumps([version, sha256(options.palimpsest), sha256(options.model), sha256(haystack), settings, arguments])
    folder = options.state / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment_of(jobs: int) -> dict[str, str]:
    """Of a process that is one of so many."""
    environment = dict(os.environ)
    if jobs > 1:  # pinned, all would share the first cores
        environment |= {"PALIMPSEST_THREADS_COUNT": str(max(1, (os.cpu_count() or 1) // jobs)), "PALIMPSEST_THREADS_PIN": "false"}
    return environment


class Runs:
    """One run of the command for each length and seed; what was finished before is found again."""

    def __init__(self, options, haystack: pathlib.Path, version: str):
        self.options = options
        self.command = [str(options.palimpsest), "niah", "--model", str(options.model), "--task", options.task, "--haystack",
                        str(haystack), "--depths", options.depths, "--turns", str(options.turns), "--question",
                        options.question, "--seeds", "1", "--json"]
        for policy in options.policy:
            self.command += ["--policy", policy]
        for recall in options.recall:
            self.command += ["--recall", recall]
        if options.oracle:
            self.command += ["--oracle"]
        self.folder = state_folder(options, haystack, version, self.command[5:])
        self.environment = environment_of(options.jobs)

    def run_all(self, lengths: list[int], seeds: int) -> list[dict]:
        """In the order of lengths; the longest run first, so that none of them is left alone at the end."""
        places = [(length, seed) for length in lengths for seed in range(1, seeds + 1)]
        first = sorted(places, key=lambda place: -place[0])
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            # If one fails, what has not begun never does.
            reports = dict(zip(first, pool.map(lambda place: self.run(*place), first)))
        return [reports[place] for place in places]

    def run(self, length: int, seed: int) -> dict:
        print(f"results.py: length {length}, seed {seed}", file=sys.stderr, flush=True)
        run = subprocess.run([*self.command, "--lengths", str(length), "--first-seed", str(seed), "--resume",
                              str(self.folder / f"{length}-{seed}.jsonl")], stdout=subprocess.PIPE, env=self.environment)
        if run.returncode != 0:
            raise RuntimeError(f"palimpsest niah ended with status {run.returncode}; what was finished is kept in {self.folder}")
        return json.loads(run.stdout)


class Row:
    """All samples of one length, policy and question."""

    def __init__(self):
        self.n = collections.Counter()      # by depth
        self.right = collections.Counter()  # by depth
        self.turns = {}                     # n and right by turn
        self.sums = collections.Counter()   # of what is a mean in a cell
        self.first = []                     # seconds to the first token, medians of cells
        self.decode = []                    # tokens a second, medians of cells
        self.peak = self.kept_all = self.as_full = self.degraded = self.counted = 0

    def add(self, cell: dict):
        self.n[cell["depth"]] += cell["n"]
        self.right[cell["depth"]] += cell["n"] * cell["correct"]
        turn = self.turns.setdefault(cell["turn"], [0, 0.0])
        turn[0] += cell["n"]
        turn[1] += cell["n"] * cell["correct"]
        for field in ("prompt_tokens", "resident_tokens", "resident_bytes", "output_tokens"):
            self.sums[field] += cell["n"] * cell[field]
        if cell["needle_seen"] is not None:  # counted where something comes back
            self.counted += cell["n"]
            self.sums["seen"] += cell["n"] * cell["needle_seen"]
        for tier, slices in cell["recalled_slices"].items():
            self.sums[tier] += cell["n"] * slices
        self.first.append(cell["first_token_seconds"])
        if cell["decode_tokens_per_second"] is not None:
            self.decode.append(cell["decode_tokens_per_second"])
        self.peak = max(self.peak, cell["device_bytes_peak"])
        for field in ("kept_all", "as_full", "degraded"):
            setattr(self, field, getattr(self, field) + (cell[field] or 0))  # null: full did not run

    def mean(self, field: str) -> float:
        return self.sums[field] / self.n.total()

    def seen(self) -> str:
        return f"{100 * self.sums['seen'] / self.counted:.0f} %" if self.counted else "not counted"

    def decoded(self) -> str:
        return f"{statistics.median(self.decode):.0f}" if self.decode else ""

    def score(self, worst: bool = True) -> str:
        low, high = wilson(self.right.total(), self.n.total())
        depth = min(self.n, key=lambda one: (self.right[one] / self.n[one], one))
        at = f", {100 * self.right[depth] / self.n[depth]:.0f} at {depth:g} %" if worst and len(self.n) > 1 else ""
        return f"{100 * self.right.total() / self.n.total():.0f} ({100 * low:.0f} to {100 * high:.0f}){at}"


def how(cell: dict) -> str:
    """The policy, and what comes back for a question."""
    return cell["policy"] if cell["recall"] == "none" else f"{cell['policy']} + {cell['recall']}"


def field_table(rows: dict[tuple, Row]) -> list[str]:
    """`rows` by task, policy, length and question. A row for each policy, a column for each of the others."""
    columns = list(dict.fromkeys((task, length, question) for task, _, length, question in rows))
    shown = max((one for one in columns if one[2] == "hidden"), key=lambda one: one[1])
    lines = ["| policy | " + " | ".join(f"{task} {length:,}, {question}" for task, length, question in columns)
             + f" | resident MiB at {shown[1]:,} | decode, tok/s |", "| --- |" + " --- |" * (len(columns) + 2)]
    for policy in dict.fromkeys(policy for _, policy, _, _ in rows):
        cells = [rows.get((task, policy, length, question)) for task, length, question in columns]
        row = rows[shown[0], policy, *shown[1:]]
        lines.append(f"| `{policy}` | " + " | ".join("" if cell is None else cell.score(worst=False) for cell in cells)
                     + f" | {row.mean('resident_bytes') / MIB:.1f} | {row.decoded()} |")
    return lines


def turns_table(rows: dict[tuple, Row]) -> list[str]:
    turns = sorted(next(iter(rows.values())).turns)
    lines = ["", "% correct turn by turn, and answers that are word for word those of `full`, to this question and those before it:",
             "", "| policy | length, question | " + " | ".join(f"turn {turn}" for turn in turns) + " | as full |",
             "| --- |" + " --- |" * (len(turns) + 2)]
    for (policy, length, question), row in rows.items():
        of_turns = " | ".join(f"{100 * right / n:.0f}" for n, right in (row.turns[turn] for turn in turns))
        lines.append(f"| `{policy}` | {length:,}, {question} | {of_turns} | {row.as_full} of {row.n.total()} |")
    return lines


def rows_of(reports: list[dict]) -> dict[tuple, Row]:
    """By policy, length and question, in the order in which they are told."""
    rows: dict[tuple, Row] = {}
    for report in reports:
        for cell in report["cells"]:
            rows.setdefault((how(cell), cell["length"], cell["question"]), Row()).add(cell)
    return rows


def scores_table(rows: dict[tuple, Row]) -> list[str]:
    """A row for each policy and question, a column for each length."""
    lengths = list(dict.fromkeys(length for _, length, _ in rows))
    lines = ["| policy | question | " + " | ".join(f"{length:,}" for length in lengths) + " |", "| --- | --- |" + " --- |" * len(lengths)]
    for policy, question in dict.fromkeys((policy, question) for policy, _, question in rows):
        scores = [rows[policy, length, question].score() if (policy, length, question) in rows else "" for length in lengths]
        lines.append(f"| `{policy}` | {question} | " + " | ".join(scores) + " |")
    return lines


def markdown(reports: list[dict], heading: str) -> str:
    rows = rows_of(reports)
    counts = sorted({row.n.total() for row in rows.values()})
    lines = [heading, "", f"Answers in each cell: {' or '.join(map(str, counts))}. % correct (95 % interval), worst depth:", "",
             *scores_table(rows)]
    if any(len(row.turns) > 1 for row in rows.values()):
        lines += turns_table(rows)
    lengths = list(dict.fromkeys(length for _, length, _ in rows))
    shown = lengths if len(lengths) <= 2 else [max(lengths)]
    lines += ["", "What stayed on the device, means of one answer; slices that recall brought from host memory and from SSD, and "
              "the share of the needle that the answer's first token could see, over layers and heads:", "",
              "| policy | length, question | prompt tokens | resident tokens | resident MiB | peak MiB | answer tokens | kept all "
              "| first token, s | decode, tok/s | slices | needle seen | degraded |", "| --- |" + " --- |" * 12]
    for (policy, length, question), row in rows.items():
        if length not in shown:
            continue
        lines.append(f"| `{policy}` | {length:,}, {question} | {row.mean('prompt_tokens'):.0f} | {row.mean('resident_tokens'):.0f} | "
                     f"{row.mean('resident_bytes') / MIB:.1f} | {row.peak / MIB:.1f} | {row.mean('output_tokens'):.1f} | "
                     f"{row.kept_all} of {row.n.total()} | {statistics.median(row.first):.2f} | "
                     f"{row.decoded()} | "
                     f"{row.mean('host'):.0f} + {row.mean('ssd'):.0f} | {row.seen()} | "
                     f"{row.degraded} |")
    return "\n".join(lines) + "\n"


def made_with(options) -> tuple[str, pathlib.Path]:
    """The program's version and the text."""
    options.state.mkdir(parents=True, exist_ok=True)
    return induction.version_of(options.palimpsest), options.haystack or bible(options.state / "bible.txt")


def measured(options) -> tuple[list[dict], str]:
    """The grid of the options, and what it was made with."""
    version, haystack = made_with(options)
    start = time.monotonic()
    try:
        reports = Runs(options, haystack, version).run_all([int(length) for length in options.lengths.split(",")], options.seeds)
    except RuntimeError as error:
        sys.exit(f"results.py: {error}")
    print(f"results.py: {(time.monotonic() - start) / 60:.1f} minutes", file=sys.stderr)
    run = reports[0]["run"]
    limit = f"answers of at most {run['max_tokens']} tokens" if run["max_tokens"] else "answers as long as the task lets them be"
    tokens, computed = (sum(report["run"]["reading"][name] for report in reports) for name in ("tokens", "computed"))
    heading = (f"{time.strftime('%Y-%m-%d', time.gmtime())}, {induction.processor()}, {os.cpu_count()} threads, {run['model']} "
               f"({options.model.name}), {run['numerics']}, {limit}, {version}, text {haystack.name} (SHA-256 "
               f"{sha256(haystack)[:12]}). Of {tokens:,} tokens of texts {computed:,} were computed, the others found.\n"
               f"`{induction.shown_command('deploy/results.py')}`")
    return reports, heading


def field(options) -> str:
    """The table of every policy as Markdown."""
    rows, given = {}, options.lengths
    for options.task, lengths in FIELD_TEXTS.items():
        options.lengths = given or lengths
        reports, heading = measured(options)
        rows |= {(options.task, *key): row for key, row in rows_of(reports).items()}
    counts = sorted({row.n.total() for row in rows.values()})
    lines = field_table(rows)
    return "\n".join([heading, "", f"Answers in each cell: {' or '.join(map(str, counts))}. % correct (95 % interval):", "", *lines]) + "\n"


def attention_table(options) -> str:
    """What every policy keeps of attention on plain text, as Markdown."""
    version, haystack = made_with(options)
    # The others do not choose among all tokens at once, so that an audit has nothing to look at.
    by_share = {share: [as_chosen(policy) for policy in of_share(share) if not policy.startswith(("infinipot", "streaming"))]
                for share in SHARES}
    folder = state_folder(options, haystack, version, ["attention", str(options.passages), str(options.passage_bytes), str(attention.AUDITED)])
    try:
        texts = attention.passages(haystack.read_bytes(), options.passages, options.passage_bytes, folder)
        audits = attention.Audits(options.palimpsest, options.model, texts, folder, environment_of(options.jobs))
        found = audits.run_all([policy for policies in by_share.values() for policy in policies], options.jobs)
    except RuntimeError as error:
        sys.exit(f"results.py: {error}")
    tokens = ", ".join(f"{audit['tokens']:,}" for audit in next(iter(found.values())))
    heading = (f"{time.strftime('%Y-%m-%d', time.gmtime())}, {induction.processor()}, {options.model.name}, {version}, passages of {tokens} "
               f"tokens of {haystack.name} (SHA-256 {sha256(haystack)[:12]}), their last {attention.AUDITED} looked at.\n"
               f"`{induction.shown_command('deploy/results.py')}`")
    return "\n".join([heading, "", "% in the mean of the passages (least to most):", "", *attention.table(by_share, found)]) + "\n"


def induction_model(options) -> str:
    """The table of the induction model as Markdown."""
    command = [sys.executable, "-B", ROOT / "deploy/induction.py", "--lengths", options.induction, "--palimpsest", options.palimpsest]
    if options.writer is not None:
        command += ["--writer", options.writer]
    run = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE)
    if run.returncode != 0:
        sys.exit(f"results.py: induction.py ended with status {run.returncode}")
    return run.stdout.decode()


def around_tables(path: pathlib.Path, flag: str) -> tuple[str, str]:
    """What stands in the file before and behind the tables of --flag, their two lines with it."""
    first, last = (f"<!-- results.py --{flag}: {where} here -->" for where in ("from", "to"))
    before, begin, rest = path.read_text().partition(first + "\n")
    _, end, after = rest.partition(last + "\n")
    if not begin or not end:
        sys.exit(f"results.py: {path} does not have the lines {first} and {last}, between which the tables stand")
    return before + begin, end + after


def write_whole(path: pathlib.Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, path.stat().st_mode)
    os.replace(file.name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--policies", action="store_true")
    parser.add_argument("--attention", action="store_true")
    parser.add_argument("--into", type=pathlib.Path, default=ROOT / "docs/results.md")
    parser.add_argument("--passages", type=int, default=4)
    parser.add_argument("--passage-bytes", type=int, default=9000)  # about 2,000 tokens of English
    parser.add_argument("--induction", default="64K,256K")
    parser.add_argument("--writer", type=pathlib.Path)
    parser.add_argument("--haystack", type=pathlib.Path)
    parser.add_argument("--palimpsest", type=pathlib.Path, default=ROOT / "build/release/apps/palimpsest")
    parser.add_argument("--lengths")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--task", default="single_prose")
    parser.add_argument("--depths")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--question", choices=("hidden", "visible", "both"))
    parser.add_argument("--policy", action="append")
    parser.add_argument("--recall", action="append")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--state", type=pathlib.Path, default=ROOT / "build/needles")
    options = parser.parse_args()
    flags = [flag for flag in ("all", "policies", "attention") if getattr(options, flag)]
    if len(flags) > 1:
        parser.error(f"--{' and --'.join(flags)} are tables each: ask for one of them")
    for name, value in (MAIN if options.all else FIELD if options.policies else ONE).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if flags:
        flag = flags[0]
        around_tables(options.into, flag)  # before an hour's work
        if options.all:
            tables = f"{markdown(*measured(options))}\nThe induction model:\n\n{induction_model(options)}"
        else:
            tables = field(options) if options.policies else attention_table(options)
        before, after = around_tables(options.into, flag)
        write_whole(options.into, f"{before}\n{tables}\n{after}")
    else:
        print(markdown(*measured(options)), end="")


if __name__ == "__main__":
    main()
