"""`palimpsest niah`: its report, what it refuses, and that the quick-start model finds the needle."""

import os
import re
import subprocess
import sys

import cli

WORDS = "the river ran past an old mill where grain was stored until winter came and carts took it to market".split()


def prose() -> str:
    """Sentences of 6 to 17 words, no two alike."""
    sentences = []
    for number in range(200):
        words = [WORDS[(number * 7 + i * (1 + number % 5)) % len(WORDS)] for i in range(6 + number % 12)]
        sentences.append(f"{' '.join(words).capitalize()} {number}.")
    return "\n".join(sentences)


class NiahTest(cli.CliTest):
    def niah(self, *arguments) -> list:
        return ["niah", "--model", self.tiny_model(), "--max-tokens", "4", *arguments]

    def test_report_has_a_cell_for_each_length_depth_and_question(self):
        run = self.expect_done(*self.niah("--lengths", "1200,2K", "--depths", "0,50", "--seeds", "2", "--question", "both",
                                          "--json"))
        cells = run.json["cells"]
        self.assertEqual([(c["length"], c["depth"], c["question"]) for c in cells],
                         [(length, depth, question) for length in (1200, 2048) for depth in (0, 50)
                          for question in ("hidden", "visible")])
        for cell in cells:
            self.assertEqual((cell["task"], cell["policy"], cell["recall"], cell["n"]), ("single_noise", "full", "none", 2))
            self.assertLessEqual(cell["prompt_tokens"] + 4, cell["length"])
            self.assertEqual(cell["resident_tokens"], cell["prompt_tokens"])
            self.assertGreater(cell["device_bytes_peak"], 0)
        self.assertEqual([row["n"] for row in run.json["summary"]], [4, 4, 4, 4])

    def test_policies_stand_beside_full_and_one_that_drops_nothing_is_marked(self):
        self.write("c.txt", "What matters here?")
        run = self.expect_done(*self.niah("--lengths", "1500", "--depths", "50", "--seeds", "1", "--policy", "snapkv:budget=50%",
                                          "--policy", "infinipot:pot=70%,catalyst=@c.txt", "--policy", "random:budget=4096"))
        rows = [line.split() for line in run.out.splitlines()[2:]]
        self.assertEqual([row[2] for row in rows],
                         ["full", "snapkv:budget=50%", "infinipot:pot=70%,catalyst=@c.txt", "random:budget=4096"])
        self.assertEqual(["kept all" in " ".join(row) for row in rows], [False, False, False, True])

    def test_table_and_progress_are_apart(self):
        run = self.expect_done(*self.niah("--haystack", self.write("prose.txt", prose()), "--lengths", "1500", "--seeds", "1"))
        self.assertIn("single_prose", run.out)
        self.assertIn("niah: 5 answers", run.err)

    def test_same_seed_gives_the_same_report(self):
        command = self.niah("--lengths", "1200", "--depths", "50", "--seeds", "2", "--json")
        first, second = (self.expect_done(*command).json["cells"][0] for _ in range(2))
        for field in ("correct", "prompt_tokens", "output_tokens", "resident_bytes"):
            self.assertEqual(first[field], second[field])

    def test_wrong_flags_are_named_before_any_work(self):
        refused = self.expect_error
        refused(cli.USAGE, *self.niah("--task", "single_nose"), contains=["single_nose", "did you mean single_noise"])
        refused(cli.USAGE, *self.niah("--task", "single_prose"), contains=["single_prose", "--haystack"])
        refused(cli.USAGE, *self.niah("--lengths", "1.5K"), contains=["--lengths", "1.5K"])
        refused(cli.USAGE, *self.niah("--depths", "101"), contains=["--depths", "'101'", "0 to 100"])
        refused(cli.USAGE, *self.niah("--question", "shown"), contains=["--question", "shown"])
        refused(cli.USAGE, *self.niah("--policy", "snapvk"), contains=["snapvk"])
        refused(cli.FAILED, *self.niah("--policy", "infinipot:catalyst=@none.txt"), contains=["none.txt"])
        refused(cli.FAILED, *self.niah("--policy", "snapkv:budget=1%"), contains=["budget=1%", "%"])
        refused(cli.FAILED, *self.niah("--lengths", "64"), contains=["64 tokens", "longer"])
        refused(cli.FAILED, *self.niah("--lengths", "1K,9K", "--prefill", "exact"), contains=[str(cli.TINY_WINDOW)])
        refused(cli.USAGE, *self.niah("--haystack", self.write("short.txt", "One. Two.")), contains=["short.txt", "2 sentences"])

    def test_interrupted_run_prints_nothing(self):
        process = self.start(*self.niah("--lengths", "2K", "--seeds", "10000", "--json"))
        first = process.stderr.readline()  # the first line of progress
        cli.interrupt(process)
        run = self.finish(process)
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertEqual(run.out, "")
        self.assertIn(b"niah", first)
        self.assertRegex(run.err, r"(?m)^palimpsest: interrupted[^\n]+--first-seed\n\Z")


class ResultsTest(cli.CliTest):
    """deploy/results.py, which runs the command in parts."""

    def results(self, *arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, "-B", cli.SOURCE / "deploy/results.py", "--model", self.tiny_model(), "--haystack",
                   self.write("prose.txt", prose()), "--palimpsest", os.environ["PALIMPSEST_TEST_BINARY"], "--lengths", "1600",
                   "--seeds", "3", "--chunk", "2", "--policy", "full", "--state", self.folder / "state", *arguments]
        return subprocess.run([str(part) for part in command], env=self.environment(), capture_output=True, text=True)

    def test_parts_that_ran_are_not_run_again_and_the_table_counts_all(self):
        first = self.results()
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("Answers in each cell: 15.", first.stdout)
        self.assertRegex(first.stdout, r"(?m)^\| `full` \| \d+ \(\d+ to \d+\), \d+ at \d+ % \|")
        self.assertIn("| `full` | 1,600, visible |", first.stdout)
        self.assertIn("15 of 15", first.stdout)
        parts = sorted((self.folder / "state").glob("*/*.json"))
        self.assertEqual([part.name for part in parts], ["1600-1-2.json", "1600-3-1.json"])
        self.assertEqual(first.stderr.count("results.py: length"), 2)
        parts[0].unlink()
        second = self.results()
        without_seconds = lambda text: re.sub(r"\d+\.\d\d (\| \d+ \+ \d+ \|)", r"\1", text)  # one part was timed again
        self.assertEqual(without_seconds(second.stdout), without_seconds(first.stdout))
        self.assertEqual(second.stderr.count("results.py: length"), 1)
        self.assertEqual(self.results("--chunk", "3").stderr.count("results.py: length"), 1)

    def test_conversations_have_a_table_of_turns(self):
        run = self.results("--seeds", "1", "--task", "facts_prose", "--turns", "2", "--depths", "10,60", "--question", "hidden",
                           "--policy", "snapkv:budget=20%", "--recall", "none", "--recall", "slices:budget=256")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Answers in each cell: 4.", run.stdout)
        self.assertIn("| policy | length, question | turn 1 | turn 2 | as full |", run.stdout)
        self.assertRegex(run.stdout, r"(?m)^\| `full` \| 1,600, hidden \| \d+ \| \d+ \| 4 of 4 \|$")
        self.assertRegex(run.stdout, r"(?m)^\| `snapkv:budget=20% \+ slices:budget=256,[^`]+` \| .* \| [1-9]\d* \+ 0 \| \d+ % \| 0 \|$")

    def test_failed_part_ends_it(self):
        run = self.results("--lengths", "64")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stdout, "")
        self.assertIn("64 tokens", run.stderr)


class NeedleTest(cli.CliTest):
    def test_full_attention_finds_the_needle(self):
        run = self.expect_done("niah", "--model", self.real_model(), "--task", "single_noise,single_prose", "--haystack",
                               self.write("prose.txt", prose()), "--lengths", "512", "--depths", "10,90", "--seeds", "2", "--json")
        for cell in run.json["cells"]:
            self.assertEqual(cell["correct"], 1, cell)
            self.assertLessEqual(cell["prompt_tokens"] + run.json["run"]["max_tokens"], 512)
            self.assertGreaterEqual(cell["prompt_tokens"] + run.json["run"]["max_tokens"], 0.99 * 512)


if __name__ == "__main__":
    cli.main()
