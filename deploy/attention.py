"""How much attention on plain text falls on what each policy keeps, and how far its output is off without the rest.

Runs `palimpsest inspect --audit` (docs/inspect.md) for each policy on passages of a text, each in a process of its own. What is done is
kept, so that an interrupted run goes on. Used by results.py. Standard library only.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import tempfile

AUDITED = 64  # tokens at the end of each passage


def passages(text: bytes, count: int, length: int, folder: pathlib.Path) -> list[pathlib.Path]:
    """`count` pieces at equal distances, as files: of whole lines, `length` bytes and what is left of the last line."""
    paths = []
    for i in range(count):
        first = text.rfind(b"\n", 0, len(text) * i // count) + 1
        last = text.find(b"\n", first + length)
        if last < 0:
            raise RuntimeError(f"a text of {len(text):,} bytes does not have {count} passages of {length:,}")
        paths.append(folder / f"passage-{i}.txt")
        paths[-1].write_bytes(text[first:last + 1])
    return paths


class Audits:
    def __init__(self, palimpsest: pathlib.Path, model: pathlib.Path, texts: list[pathlib.Path], folder: pathlib.Path, environment: dict):
        self.command = [str(palimpsest), "inspect", "--model", str(model), "--audit", str(AUDITED), "--json"]
        self.texts = texts
        self.folder = folder
        self.environment = environment

    def run(self, policy: str, text: pathlib.Path) -> dict:
        """The text's tokens, the audit's mean and its worst layer."""
        kept = self.folder / f"{policy} {text.stem}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        with tempfile.TemporaryDirectory() as data:
            run = subprocess.run([*self.command, "--data-dir", data, "--prompt-file", str(text), "--policy", policy],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment)
        if run.returncode != 0:
            raise RuntimeError(f"palimpsest inspect --policy {policy} ended with status {run.returncode}: {run.stderr.decode().strip()}")
        report = json.loads(run.stdout)
        audit = report["audit"]
        found = {"tokens": len(report["ids"]), "seen": audit["mean"]["seen"], "error": audit["mean"]["error"],
                 "worst": min(layer["seen"] for layer in audit["layers"])}
        kept.with_suffix(".new").write_text(json.dumps(found))
        kept.with_suffix(".new").rename(kept)
        return found

    def run_all(self, policies: list[str], jobs: int) -> dict[str, list[dict]]:
        """One audit of each text, by policy."""
        places = [(policy, text) for policy in policies for text in self.texts]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            audits = dict(zip(places, pool.map(lambda place: self.run(*place), places)))
        return {policy: [audits[policy, text] for text in self.texts] for policy in policies}


def table(by_share: dict[int, list[str]], audits: dict[str, list[dict]]) -> list[str]:
    """A row for each policy, in the order of what it holds at the middle share; two columns for each share."""
    shares = list(by_share)
    middle = len(shares) // 2

    def mean(policy: str, field: str) -> float:
        return 100 * statistics.mean(audit[field] for audit in audits[policy])

    lines = ["| policy | " + " | ".join(f"{share} % of the text: attention on it | error of the output" for share in shares)
             + f" | worst layer at {shares[middle]} % |", "| --- |" + " --- |" * (2 * len(shares) + 1)]
    rows = sorted(zip(*by_share.values()), key=lambda row: -mean(row[middle], "seen"))
    for row in rows:
        cells = []
        for policy in row:
            seen = [100 * audit["seen"] for audit in audits[policy]]
            cells.append(f"{statistics.mean(seen):.1f} ({min(seen):.0f} to {max(seen):.0f}) | {mean(policy, 'error'):.1f}")
        name = row[middle]
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {mean(name, 'worst'):.0f} |")
    return lines
