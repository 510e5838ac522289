"""`palimpsest inspect --policy`: what it refuses, and the page that --html writes."""

import base64
import json
import os
import re

import cli


def page_data(path) -> dict:
    page = path.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def decode(code: bytes, heads: int, before: list, read: int) -> list:
    """apps/kept_code.h: the tokens of each head of one step, given those of the step before."""
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = code[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    lists = []
    for head in range(heads):
        form, count, places = number(), number(), []
        if form & 1:
            places = [8 * i + bit for i in range(count) for bit in range(8) if code[at + i] >> bit & 1]
            at += count
        else:
            place = 0
            for _ in range(count // 2):
                place += number()
                run = number()
                places += range(place, place + run)
                place += run
        old = before[head] if form & 2 else None
        lists.append([p if old is None else old[p] if p < len(old) else read + p - len(old) for p in places])
    assert at == len(code), f"{len(code) - at} bytes too many"
    return lists


def steps(data: dict) -> list:
    """What the page shows: [(cycle, kept[layer][kv_head])]."""
    heads, found, lists, read = data["kv_heads"], [], [], 0
    for step in data["steps"]:
        lists = decode(base64.b64decode(step["kept"]), data["layers"] * heads, lists, read)
        read = step["read"]
        found.append((step["cycle"], [lists[i:i + heads] for i in range(0, len(lists), heads)]))
    return found


class HtmlTest(cli.CliTest):
    def inspect(self, *arguments) -> list:
        self.tiny_model()
        text = " ".join(f"line {i} says {i * i % 97}." for i in range(60))
        return ["inspect", "--prompt-file", self.write("p.txt", text), "--html", "out.html", *arguments]

    def test_page_shows_what_the_json_says(self):
        for policy in ("snapkv:budget=100", "random:budget=25%,seed=3", "streaming:sink=4,recent=60",
                       "h2o:heavy=60,recent=40", "lookm:budget=100,recent=30,images=10-60/80-200", "tova:budget=90",
                       "roco:budget=120,merge=values", "adakv:budget=100,floor=0"):
            found = self.expect_done(*self.inspect("--policy", policy, "--generate", "3", "--json")).json
            data = page_data(self.folder / "out.html")
            self.assertEqual(steps(data), [(0, found["kept"])])
            self.assertEqual(data["ids"], found["ids"])
            self.assertEqual(data["generated"], found["generated"])
            self.assertEqual(data["policy"], found["policy"])
            self.assertEqual(data["layers"], len(found["kept"]))
            self.assertEqual("".join(data["texts"][str(i)] for i in found["ids"]), (self.folder / "p.txt").read_text())

    def test_every_policy_keeps_its_budget_exactly_and_others_than_the_rest(self):
        budget, every = 100, {}
        policies = {name: f"{name}:budget={budget}" for name in ("snapkv", "random", "tova", "roco", "knorm", "keydiff", "expected", "sirllm",
                                                                 "pyramidkv", "adakv", "chunkkv", "criticalkv", "kvzip")}
        policies |= {"streaming": "streaming:sink=4,recent=96", "h2o": "h2o:heavy=60,recent=40", "lookm": "lookm:budget=100,recent=30",
                     "lookm images": "lookm:budget=100,recent=30,images=10-60/80-200"}
        for name, policy in policies.items():
            found = self.expect_done(*self.inspect("--policy", policy, "--json")).json
            kept = found["kept"]
            self.assertGreater(len(found["ids"]), 2 * budget, "full keeps all of them")
            heads = [head for layer in kept for head in layer]
            self.assertEqual(sum(len(head) for head in heads), budget * len(heads), name)
            self.assertEqual(heads, [sorted(set(head)) for head in heads], name)
            same = {"sirllm": heads, "streaming": heads, "chunkkv": kept[0], "tova": kept[0]}.get(name, heads[:1])
            self.assertTrue(all(head == same[0] for head in same), name)
            every[name] = kept
        names = list(every)
        for i, name in enumerate(names):
            for other in names[:i]:
                self.assertNotEqual(every[name], every[other], f"{name} and {other}")

    def test_page_shows_each_distillation(self):
        found = self.expect_done(*self.inspect("--policy", "infinipot:pot=300,keep=100", "--json")).json
        self.assertGreater(len(found["cycles"]), 2)
        data = page_data(self.folder / "out.html")
        self.assertEqual(steps(data), [(i + 1, kept) for i, kept in enumerate(found["cycles"])])

    def test_two_policies_stand_beside_each_other(self):
        command = self.inspect("--policy", "snapkv:budget=100", "--policy", "knorm:budget=120", "--generate", "3", "--json")
        found = self.expect_done(*command).json
        data = page_data(self.folder / "out.html")
        for side, shown in ((found, data), (found["other"], {**data["other"], "kv_heads": data["kv_heads"], "layers": data["layers"]})):
            self.assertEqual(steps(shown), [(0, side["kept"])])
            self.assertEqual((shown["policy"], shown["generated"]), (side["policy"], side["generated"]))
        self.assertTrue(found["other"]["policy"].startswith("knorm:budget=120"))
        alone = self.expect_done(*self.inspect("--policy", "knorm:budget=120", "--generate", "3", "--json")).json
        self.assertEqual(alone, {"ids": found["ids"], **found["other"]}, "what a policy keeps does not depend on the other")
        self.expect_error(cli.USAGE, *command, "--policy", "tova", contains=["--policy 3 times", "two side by side"])

    def test_page_of_full_says_that_nothing_was_dropped(self):
        out = self.expect_done(*self.inspect()).out
        self.assertNotIn("policy", out)
        data = page_data(self.folder / "out.html")
        self.assertEqual((data["policy"], data["steps"]), ("full", []))
        self.assertIn("Nothing was dropped", (self.folder / "out.html").read_text())

    def test_budget_above_the_prompt_drops_nothing(self):
        found = self.expect_done(*self.inspect("--policy", "snapkv:budget=2000", "--json")).json
        self.assertEqual(found["policy"].split(":")[0], "snapkv")
        for _, kept in steps(page_data(self.folder / "out.html")):
            self.assertTrue(all(len(head) == len(found["ids"]) for layer in kept for head in layer))

    def test_command_of_the_page_makes_it_again(self):
        self.expect_done(*self.inspect("--policy", "snapkv:budget=64"))
        first = (self.folder / "out.html").read_text()
        words = page_data(self.folder / "out.html")["command"].split()
        self.assertEqual(words[:2], ["palimpsest", "inspect"])
        (self.folder / "out.html").unlink()
        self.expect_done(*words[1:])
        self.assertEqual((self.folder / "out.html").read_text(), first)

    def test_markup_in_a_text_stays_text(self):
        self.tiny_model()
        text = "</script><script>alert('x')</script><!-- <img src=x onerror=alert(1)> \u2028"
        self.expect_done("inspect", "--prompt-file", self.write("p.txt", text), "--html", "out.html")
        page = (self.folder / "out.html").read_text()
        self.assertEqual(page.count("<script"), 2)
        self.assertEqual(page.count("</script"), 2)
        data = page_data(self.folder / "out.html")
        shown = b"".join(bytes(t) if isinstance(t, list) else t.encode() for t in (data["texts"][str(i)] for i in data["ids"]))
        self.assertEqual(shown.decode(), text)

    def test_place_that_cannot_be_written_is_named_before_any_work(self):
        prompt = ["inspect", "--prompt-file", "p.txt", "--html"]  # there is neither prompt nor model
        self.expect_error(cli.FAILED, *prompt, "none/out.html", contains=["none/out.html", "folder does not exist"])
        self.expect_error(cli.FAILED, *prompt, ".", contains=["'.' is a folder"])
        self.expect_error(cli.FAILED, *prompt, "/dev/null", contains=["/dev/null", "no regular file"])
        if os.geteuid() != 0:
            (self.folder / "closed").mkdir(mode=0o500)
            self.expect_error(cli.FAILED, *prompt, "closed/out.html", contains=["closed/out.html", "may not be written"])


class AuditTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.tiny_model()

    def audit(self, *arguments) -> list:
        text = " ".join(f"line {i} says {i * i % 97}." for i in range(60))
        return ["inspect", "--prompt-file", self.write("p.txt", text), "--audit", "8", *arguments]

    def test_more_that_comes_back_is_more_that_is_seen(self):
        seen = []
        for recall in ("none", "slices:budget=64,slice=8", "all"):
            found = self.expect_done(*self.audit("--policy", "snapkv:budget=64", "--recall", recall, "--json")).json
            audit = found["audit"]
            self.assertEqual((audit["tokens"], audit["recall"], found["generated"]), (8, recall, []))
            self.assertEqual(len(audit["layers"]), len(found["kept"]))
            for field, mean in audit["mean"].items():
                self.assertAlmostEqual(mean, sum(layer[field] for layer in audit["layers"]) / len(audit["layers"]))
            seen.append(audit["mean"]["seen"])
        self.assertEqual(seen, sorted(set(seen)))
        self.assertAlmostEqual(seen[-1], 1)

    def test_for_people(self):
        out = self.expect_done(*self.audit("--policy", "snapkv:budget=64")).out
        self.assertIn("attention of the last 8 tokens, recall none", out)
        self.assertRegex(out, r"mean +0\.\d{4} +0\.\d{4} +\d\.\d{4}")

    def test_what_cannot_be_looked_at_is_refused(self):
        self.expect_error(cli.USAGE, *self.audit("--recall", "slice"), contains=["did you mean slices"])
        self.expect_error(cli.USAGE, *self.audit("--recall", "auto"), contains=["auto"])
        self.expect_error(cli.USAGE, *self.audit("--generate", "3"), contains=["--audit 8", "--generate 3"])
        self.expect_error(cli.USAGE, "inspect", "--prompt-file", "p.txt", "--recall", "all", contains=["--audit N"])
        self.expect_error(cli.FAILED, *self.audit(), contains=["full", "snapkv"])
        self.expect_error(cli.FAILED, *self.audit("--policy", "streaming:recent=64"), contains=["streaming", "snapkv"])
        self.expect_error(cli.FAILED, *self.audit("--policy", "lookm:budget=64,recent=16"), contains=["lookm", "merge=none"])
        self.expect_error(cli.FAILED, "inspect", "--prompt-file", "p.txt", "--audit", "60000", "--policy", "snapkv",
                          contains=["60000"])


class PolicyTest(cli.CliTest):
    def test_wrong_policy_is_wrong_usage_before_any_work(self):
        def refused(policy: str, *contains: str):  # there is no model either
            self.expect_error(cli.USAGE, "inspect", "--prompt-file", "p.txt", "--policy", policy, contains=contains)
        refused("snapvk", "snapvk", "did you mean snapkv")
        refused("snapkv:budgt=4", "budgt", "did you mean budget")
        refused("snapkv:kernel=4", "kernel", "4", "odd")
        refused("snapkv:budget=32", "budget", "32")
        refused("infinipot:catalyst=question", "catalyst=question", "has none")

    def test_policy_that_does_not_fit_says_both_numbers(self):
        self.tiny_model()
        prompt = self.write("p.txt", "a b c d " * 100)
        self.expect_error(cli.FAILED, "inspect", "--prompt-file", prompt, "--policy", "infinipot:pot=64,keep=32",
                          contains=["pot", "64"])
        self.expect_error(cli.FAILED, "inspect", "--prompt-file", prompt, "--policy", "infinipot:catalyst=@none.txt",
                          contains=["none.txt", "does not exist"])
        self.expect_error(cli.FAILED, "inspect", "--prompt-file", prompt, "--policy",
                          f"infinipot:catalyst=@{self.write('blank.txt', '  ')}", contains=["catalyst", "empty"])

    def test_catalyst_of_a_file_picks_otherwise_than_the_default(self):
        self.tiny_model()
        prompt = self.write("p.txt", " ".join(f"w{i * i % 89}" for i in range(300)))
        own = self.write("catalyst.txt", "\n\nWhich numbers are there?")
        command = ["inspect", "--prompt-file", prompt, "--json", "--policy"]
        default = self.expect_done(*command, "infinipot:pot=400,keep=100").json
        asked = self.expect_done(*command, f"infinipot:pot=400,keep=100,catalyst=@{own}").json
        self.assertNotEqual(default["kept"], asked["kept"])


if __name__ == "__main__":
    cli.main()
