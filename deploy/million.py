#!/usr/bin/env python3
"""A table about a million tokens of prose: the quick-start model reads a text 128 times its window.

usage: million.py --model FILE.gguf --folder DIR [--tokens 1M] [--policy NAME:...] [--recall R]... [--haystack FILE]
                  [--palimpsest PATH] [--threads N]

Hides ten facts of ten kinds at ten depths of one text, ingests it into a data folder below --folder (25 GiB for 1M tokens of
this model), and asks for each fact in a chat of its own: one new process for each --recall, told to drop the page cache before
it if that is allowed. What was read is found again by the next run. Prints Markdown; standard library only.

Without --haystack the text is the King James Bible of Debian's package bible-kjv, from its beginning again where it ends.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import urllib.request

import induction
import results

# What is told, up to the value; the value; what is asked. Ten kinds of values: this small model takes ten numbers for each other.
FACTS = [("The parrot of the ferryman of Oskarholm is called", "Pepperpot", "What is the parrot of the ferryman of Oskarholm called?"),
         ("The phone number of the Amber bakery is", "6835305", "What is the phone number of the Amber bakery?"),
         ("The bicycle of the mayor of Tarnwick is painted", "turquoise", "In which color is the bicycle of the mayor of Tarnwick painted?"),
         ("The night train to Brandelund leaves at", "7:42", "When does the night train to Brandelund leave?"),
         ("Professor Lindqvist keeps her violin in a", "barrel", "In what does Professor Lindqvist keep her violin?"),
         ("The chess tournament of Quillan was won by", "Tamsin Okafor", "By whom was the chess tournament of Quillan won?"),
         ("The secret ingredient of the harbor soup is", "pickled walnuts", "What is the secret ingredient of the harbor soup?"),
         ("The telescope on Mount Ferrow was built in the year", "1937", "In which year was the telescope on Mount Ferrow built?"),
         ("The glass museum is in the street named", "Lantern Row", "In which street is the glass museum?"),
         ("The favorite animal of the astronaut Ines Varga is the", "walrus", "What is the favorite animal of the astronaut Ines Varga?")]
DEPTHS = [5 + 10 * i for i in range(10)]
INTRODUCTION = "Some facts are hidden within the following text. Make sure to memorize them. I will quiz you about them afterwards."
TOKENS_PER_LETTER = 0.2441  # of this text and tokenizer; `ingest` says how many tokens there are
ANSWER_TOKENS = 32


def write_document(path: pathlib.Path, haystack: pathlib.Path, letters: int) -> None:
    """Each fact stands between two lines of the text."""
    places = [letters * depth // 100 for depth in DEPTHS]
    told, size = 0, 0
    with path.open("w") as file:
        file.write(INTRODUCTION + "\n")
        for line in itertools.cycle(haystack.read_text().splitlines()):
            if told < len(FACTS) and size >= places[told]:
                file.write(f"{FACTS[told][0]} {FACTS[told][1]}.\n")
                told += 1
            if size >= letters:
                return
            file.write(line + "\n")
            size += len(line) + 1


def drop_page_cache() -> str:
    subprocess.run(["sync"], check=True)
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return "dropped"
    return "as it was"


class Server:
    """`palimpsest serve` on the data folder, on a port of its choice."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            sys.exit("million.py: the server ended before it was ready; what it said stands above")
        self.url = json.loads(ready)["url"]

    def ask(self, document: str, fact: tuple[str, str, str], policy: str, recall: str) -> dict:
        body = {"messages": [{"role": "user", "content": fact[2]}],
                "max_tokens": ANSWER_TOKENS,
                "palimpsest": {"documents": [document], "policy": policy, "recall": recall, "answer_prefix": " " + fact[0]}}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=3600) as reply:
            reply = json.load(reply)
            return reply["palimpsest"]["receipt"] | {"answer": reply["choices"][0]["message"]["content"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def asked(server: Server, document: str, policy: str, recall: str, cache: str) -> str:
    cold = server.ask(document, FACTS[0], policy, recall)["seconds"]["first_token"]
    found, receipts = [], []
    for fact in FACTS:
        receipts.append(server.ask(document, fact, policy, recall))
        found.append(fact[1] in receipts[-1]["answer"])
        print(f"million.py: {recall}: {fact[0]} {fact[1]}: {receipts[-1]['answer']!r}", file=sys.stderr, flush=True)
    again, *first = (receipt["seconds"]["first_token"] for receipt in receipts)  # again: the question that was asked cold
    decode = [receipt["tokens_per_second"]["decode"] for receipt in receipts]
    slices = [sum(receipt["recalled"][tier]["slices"] for receipt in receipts) / len(receipts) for tier in ("host", "ssd")]
    resident = statistics.mean(receipt["resident_tokens"] for receipt in receipts)
    peak = max(receipt["device_bytes"]["peak"] for receipt in receipts)
    return (f"| `{policy}` | `{recall}` | {sum(found)} | {' '.join('x' if one else '-' for one in found)} | {cold:.1f} ({cache}) | "
            f"{again:.2f} | {statistics.median(first):.2f} ({min(first):.2f} to {max(first):.2f}) | {statistics.median(decode):.1f} | "
            f"{resident:,.0f} | {induction.mib(peak)} | {slices[0]:,.0f} + {slices[1]:,.0f} | "
            f"{sum(len(receipt['degraded']) for receipt in receipts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", default="1M")
    parser.add_argument("--policy", default="snapkv:budget=512")
    parser.add_argument("--recall", action="append")
    parser.add_argument("--haystack", type=pathlib.Path)
    parser.add_argument("--palimpsest", type=pathlib.Path, default=results.ROOT / "build/release/apps/palimpsest")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    haystack = options.haystack or results.bible(options.folder / "bible.txt")
    text = options.folder / "million.txt"
    write_document(text, haystack, round(induction.tokens_of(options.tokens) / TOKENS_PER_LETTER))

    runner = induction.Runner(options, options.folder / "data", options.model)
    document, kinds, cpu, size = runner.ingest(text)
    induction.print_heading("deploy/million.py", options)
    print("| tokens | read in s | tokens/s | processor s | KV on SSD, MiB | index on SSD, MiB | process, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| {document['tokens']:,} | {'read before' if document['already_known'] else format(document['seconds'], ',.0f')} | "
          f"{document['tokens_per_second']:,.0f} | {cpu:,.0f} | {induction.mib(kinds['block']['bytes'])} | "
          f"{induction.mib(kinds['index']['bytes'])} | {induction.mib(size)} |\n", flush=True)
    print("| kept | recall | facts found of 10 | at 5, 15 ... 95 % | first question of a new process, s (page cache) | again, s | "
          "others' first token, s | decode, tokens/s | resident tokens | peak device MiB | slices: host + SSD | degraded |")
    print("| --- |" + " --- |" * 11)
    for recall in options.recall or ["none", "slices"]:
        cache = drop_page_cache()
        with Server([str(options.palimpsest), "serve", "--port", "0", "--admin-port", "0", *runner.common]) as server:
            print(asked(server, document["id"], options.policy, recall, cache), flush=True)


if __name__ == "__main__":
    main()
