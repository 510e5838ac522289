"""Sums up build/results for deploy/test.sh: parts.tsv (part, seconds, exit status), other.tsv (part, name, outcome,
reason) and one JUnit file of ctest for each part that has one. Exit status 1 if anything failed. The last line is
worded as ctest words its own. Standard library only.
"""

import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

OUTCOMES = ("passed", "failed", "skipped")


def rows(path: pathlib.Path, columns: int) -> list[list[str]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(line.split("\t") + [""] * columns)[:columns] for line in lines if line]


def skip_reason(output: str) -> str:
    """GoogleTest prints 'file:line: Skipped' and then the reason; ctest's own reasons are messages."""
    match = re.search(r"Skipped\n(.+)", output)
    return match[1].strip() if match else "no reason given"


def junit(path: pathlib.Path) -> list[tuple[str, str, str]]:
    if not path.exists():
        return []
    results = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = case.get("name", "?")
        if case.find("failure") is not None or case.find("error") is not None:
            results.append((name, "failed", case.find("failure").get("message", "")))
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            results.append((name, "skipped", skip_reason(case.findtext("system-out") or "")))
        else:
            results.append((name, "passed", ""))
    return results


def main(folder: pathlib.Path) -> int:
    results = collections.defaultdict(list)
    for part, name, outcome, reason in rows(folder / "other.tsv", 4):
        results[part].append((name, outcome, reason))
    parts = rows(folder / "parts.tsv", 3)
    for part, _, status in parts:
        results[part] += junit(folder / f"{part}.xml")
        if not results[part] and status == "0":
            results[part].append((part, "skipped", "there is no test in this part"))
        if status != "0" and not any(outcome == "failed" for _, outcome, _ in results[part]):
            results[part].append((part, "failed", f"broke off with exit status {status}: see its output above"))

    total = collections.Counter()
    print(f"{'part':<8}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}")
    for part, seconds, _ in parts:
        counts = collections.Counter(outcome for _, outcome, _ in results[part])
        total += counts
        print(f"{part:<8}" + "".join(f"{counts[outcome]:>8}" for outcome in OUTCOMES) + f"{seconds:>9}")

    for outcome in ("skipped", "failed"):
        grouped = collections.defaultdict(list)
        for part, _, _ in parts:
            for name, how, reason in results[part]:
                if how == outcome:
                    grouped[(part, reason)].append(name)
        if grouped:
            print(f"\n{outcome.capitalize()}:")
        for (part, reason), names in grouped.items():
            shown = names if outcome == "failed" else names[:8] + [f"and {len(names) - 8} more"] * (len(names) > 8)
            print(f"  {part}: {', '.join(shown)}" + (f": {reason}" if reason else ""))

    count, failed = sum(total.values()), total["failed"]
    percent = 100 * (count - failed) // count if count else 0
    print(f"\n{percent}% tests passed, {failed} tests failed out of {count}"
          f" ({total['passed']} passed, {total['skipped']} skipped)")
    return 0 if count and not failed else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
