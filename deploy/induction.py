#!/usr/bin/env python3
"""The tables of docs/results.md about the induction model: lengths at which no small trained model can be asked.

usage: induction.py [--lengths 64K,256K,1M] [--read exact,anchored,pot] [--threads 1] [--needles 10] [--folder DIR]
                    [--palimpsest PATH] [--writer PATH]

For each length and way of reading: writes model and document (docs/induction-model.md), ingests the document into a data
folder of its own, and asks for each needle and for a key that is not there, each question in a process of its own, with each
policy and recall of WAYS. A pot reads what was read in spans once more: its first question is that. Exact reading costs the
square of the length: 64K take some minutes of one core, 1M half a day.
--folder keeps what was read, for another run; by default it is temporary.

Prints Markdown: the command lines, then a table of reading and one of answers. Seconds are those of the clock, beside them
those of the processor, which say more on a machine that does other work too. Standard library only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MIB = 1 << 20
WINDOW = {"exact": 1 << 23, "anchored": 8192, "pot": 8192}  # of the model's file: what is longer is read in spans
CATALYST = "/".join(str(168 + i) for i in range(8))  # fillers
WAYS = {
    "exact": [("full", "none"), ("snapkv:budget=512", "none"), ("snapkv:budget=512", "slices:words=0"), ("streaming:recent=4K", "none")],
    "anchored": [("snapkv:budget=512", "none"), ("snapkv:budget=512", "slices:words=0")],
    "pot": [(f"infinipot:pot=2048,keep=1024,catalyst_ids={CATALYST}", "none")],
}
ABSENT_TOKENS = 64  # of an answer about a key that is not there: what decoding is timed by


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def version_of(palimpsest: pathlib.Path) -> str:
    return subprocess.run([palimpsest, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def shown_command(script: str) -> str:
    """This run's command line; where files lie on this machine says nothing to others."""
    return shlex.join([script, *(pathlib.Path(one).name if one.startswith("/") else one for one in sys.argv[1:])])


def print_heading(script: str, options) -> None:
    print(f"{datetime.date.today()}, {processor()}, {options.threads} of {os.cpu_count()} cores, {version_of(options.palimpsest)}.")
    print(f"`{shown_command(script)}`\n")


def tokens_of(text: str) -> int:
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:].upper(), 1)
    return int(text[:-1] if scale > 1 else text) * scale


class Runner:
    """Runs the command on one data folder."""

    def __init__(self, options, folder: pathlib.Path, model: pathlib.Path):
        self.options = options
        self.common = ["--model", str(model), "--data-dir", str(folder), "--threads-count", str(options.threads),
                       "--device-numerics", "bf16", "--json"]

    def run(self, *arguments: str):
        """The JSON that it prints, its seconds of the processor, and its largest size in bytes."""
        command = [str(self.options.palimpsest), *arguments, *self.common]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            for file in (out, err):
                file.seek(0)
            if process.returncode != 0:
                sys.exit(f"induction.py: {shlex.join(command)}\n{err.read().decode()}")
            return json.loads(out.read()), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    def ingest(self, document: pathlib.Path):
        """What is known of it then, what is on SSD by kind, the run's seconds of the processor, and its largest size in bytes."""
        ingested, cpu, size = self.run("ingest", str(document))
        tiers = {tier["tier"]: tier for tier in self.run("storage", "status")[0]["tiers"]}
        return ingested["documents"][0], tiers["ssd"]["kinds"], cpu, size

    def ask(self, document: pathlib.Path, question: str, policy: str, recall: str, max_tokens: int):
        return self.run("ask", "--document", str(document), "--policy", policy, "--recall", recall, "--max-tokens",
                        str(max_tokens), question)


def mib(count: float) -> str:
    return f"{count / MIB:,.1f}"


def read(runner: Runner, document: pathlib.Path, tokens: int, way: str) -> str | None:
    """Nothing if it was read before, as spans are that a pot reads once more."""
    known, kinds, cpu, size = runner.ingest(document)
    name = "exact" if way == "exact" else "anchored, spans of 2K"
    if known["already_known"]:
        return None
    return (f"| {tokens:,} | {name} | {known['seconds']:.1f} | {known['tokens_per_second']:,.0f} | {cpu:.1f} | "
            f"{known['tokens'] / cpu:,.0f} | {mib(kinds['block']['bytes'])} | {mib(kinds['index']['bytes'])} | {mib(size)} |")


def answers(runner: Runner, document: pathlib.Path, tokens: int, way: str, policy: str, recall: str, needles: list) -> str:
    absent = needles[-1]
    first, first_cpu, _ = runner.ask(document, needles[0]["question"], policy, recall, 8)  # what the policy keeps is made here
    right, seconds, receipts = 0, [], []
    for needle in needles[:-1]:
        answer, _, _ = runner.ask(document, needle["question"], policy, recall, 8)
        right += answer["answer"] == needle["answer"] and answer["finish_reason"] == "stop"
        receipts.append(answer["receipt"])
        seconds.append(answer["receipt"]["seconds"]["first_token"])
    nothing, _, _ = runner.ask(document, absent["question"], policy, recall, ABSENT_TOKENS)
    told = nothing["answer"] == absent["answer"] * ABSENT_TOKENS
    receipts.append(nothing["receipt"])
    recalled = receipts[0]["recalled"]
    return (f"| {tokens:,} | {way} | `{policy.split(',catalyst')[0]}`{', recall ' if recall != 'none' else ''}"
            f"{'`' + recall + '`' if recall != 'none' else ''} | {right} of {len(needles) - 1} | {'yes' if told else 'NO'} | "
            f"{first['receipt']['seconds']['first_token']:.2f} ({first_cpu:.2f}) | {statistics.median(seconds):.2f} | "
            f"{nothing['receipt']['tokens_per_second']['decode']:,.0f} | {receipts[0]['resident_tokens']:,.0f} | "
            f"{mib(max(r['device_bytes']['peak'] for r in receipts))} | "
            f"{sum(recalled[tier]['slices'] for tier in recalled):,} |")


def measure(options, folder: pathlib.Path) -> None:
    reading, asking = [], []
    for length in options.lengths.split(","):
        tokens = tokens_of(length)
        document = folder / f"{tokens}.txt"
        lines = subprocess.run([options.writer, "document", document, str(tokens), str(options.needles)], check=True,
                               stdout=subprocess.PIPE).stdout.decode().splitlines()
        needles = [json.loads(line) for line in lines]
        for way in options.read.split(","):
            model = folder / f"{WINDOW[way]}.gguf"
            subprocess.run([options.writer, "model", model, str(WINDOW[way])], check=True)
            runner = Runner(options, folder / f"{tokens}-{WINDOW[way]}.data", model)
            row = read(runner, document, tokens, way)
            if row is not None:
                reading.append(row)
                print(row, file=sys.stderr, flush=True)
            for policy, recall in WAYS[way]:
                asking.append(answers(runner, document, tokens, way, policy, recall, needles))
                print(asking[-1], file=sys.stderr, flush=True)
    print_heading("deploy/induction.py", options)
    print("| tokens | read | s | tokens/s | processor s | tokens per processor s | KV on SSD, MiB | index on SSD, MiB | "
          "process, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(reading), end="\n\n")
    print("| tokens | read | kept | needles found | absent key: all `?` | first question, s (processor) | first token, s | "
          "decode, tokens/s | resident tokens | peak device MiB | slices of an answer |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(asking))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="64K,256K,1M")
    parser.add_argument("--read", default="anchored,pot")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--needles", type=int, default=10)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--palimpsest", type=pathlib.Path, default=ROOT / "build/release/apps/palimpsest")
    parser.add_argument("--writer", type=pathlib.Path, default=ROOT / "build/release/tests/testing/write_induction_model")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return measure(options, options.folder)
    with tempfile.TemporaryDirectory(prefix="palimpsest-induction-") as folder:
        measure(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
