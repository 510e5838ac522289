"""`palimpsest niah`: its report, what it refuses, and that the quick-start model finds the needle."""

import contextlib
import csv
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import cli
import serving

WORDS = "the river ran past an old mill where grain was stored until winter came and carts took it to market".split()


def prose() -> str:
    """Sentences of 6 to 17 words, no two alike."""
    sentences = []
    for number in range(200):
        words = [WORDS[(number * 7 + i * (1 + number % 5)) % len(WORDS)] for i in range(6 + number % 12)]
        sentences.append(f"{' '.join(words).capitalize()} {number}.")
    return "\n".join(sentences)


def long_prose() -> str:
    """The King James Bible where Debian's bible-kjv is installed, else sentences over and over."""
    if not shutil.which("bible"):
        return "\n".join([prose()] * 4)
    run = subprocess.run(["bible", "-f", "gen1:1-gen20:18"], stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True)
    return re.sub(r"(?m)^\w+:\d+ ", "", run.stdout)


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
        table, below = run.out.split("\n\n")
        rows = [line.split() for line in table.splitlines()[2:]]
        self.assertEqual([row[2] for row in rows],
                         ["full", "snapkv:budget=50%", "infinipot:pot=70%,catalyst=@c.txt", "random:budget=4096"])
        self.assertRegex(below, r"^reading the texts before anything was asked: \d+ tokens, \d+ of them computed, [\d.]+ [KM]iB on the device\n$")
        self.assertEqual(["kept all" in " ".join(row) for row in rows], [False, False, False, True])

    def test_grid_leaves_out_what_excludes_each_other(self):
        command = self.niah("--lengths", "1500", "--depths", "50", "--seeds", "1", "--policy", "streaming:recent=25%", "--policy",
                            "random:budget=25%", "--recall", "slices:budget=256", "--question", "both", "--json")
        run = self.expect_done(*command, "--recall", "none")
        self.assertEqual([(cell["question"], cell["policy"], cell["recall"][:6]) for cell in run.json["cells"]],
                         [("hidden", "full", "none"), ("hidden", "streaming:recent=25%", "none"), ("hidden", "random:budget=25%", "slices"),
                          ("hidden", "random:budget=25%", "none"), ("visible", "full", "none"),
                          ("visible", "streaming:recent=25%", "none"), ("visible", "random:budget=25%", "none")])
        self.assertEqual(len(re.findall(r"(?m)^niah: without .*recall slices", run.err)), 3, run.err)
        self.expect_error(cli.FAILED, *command, contains=["streaming", "window slides"])

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
        refused(cli.USAGE, *self.niah("--haystack", self.write("short.txt", "One. Two.")), contains=["short.txt", "sentences, 2 where 10"])

    def test_interrupted_run_goes_on_and_gives_the_report_of_one_run(self):
        """Stopped in the middle of texts: a policy finds what another one saw, and recall needs what was dropped."""
        command = self.niah("--task", "facts_noise", "--turns", "2", "--lengths", "1200,1500", "--depths", "0,50", "--seeds", "1",
                            "--policy", "snapkv:budget=50%", "--policy", "kvzip:budget=25%", "--policy", "kvzip:budget=50%",
                            "--recall", "none", "--recall", "slices:budget=256", "--question", "both", "--json")
        whole = self.expect_done(*command).json
        state = self.folder / "state.jsonl"
        for stop, lines in ((cli.interrupt, 4), (subprocess.Popen.kill, 9), (subprocess.Popen.kill, 30)):
            process = self.start(*command, "--resume", state)
            self.eventually_lines(state, process, lines)
            stop(process)
            run = self.finish(process)
            self.assertNotEqual(run.status, cli.DONE)
            self.assertEqual(run.out, "")
            if stop is cli.interrupt:
                self.assertRegex(run.err, r"(?m)^palimpsest: interrupted; [^\n]+state\.jsonl\n\Z")
        resumed = self.expect_done(*command, "--resume", state)
        self.assertRegex(resumed.err, r"(?m)^niah: \d+ answers to \d+ texts; \d+ of 88 answers are in [^\n]+; about ")
        self.assertGreaterEqual(int(re.search(r"; (\d+) of 88 answers are in ", resumed.err)[1]), 58, "two of each conversation that was finished")
        self.assertEqual(self.without_times(resumed.json), self.without_times(whole))
        again = self.expect_done(*command, "--resume", state)
        self.assertEqual(again.json["cells"], resumed.json["cells"], "times, too: nothing ran")
        self.expect_error(cli.FAILED, *command, "--resume", state, "--seeds", "5",
                          contains=["state.jsonl", "seeds: 1 there, 5 here"])

    def test_without_a_file_the_same_command_goes_on_and_leaves_nothing(self):
        command = self.niah("--lengths", "1500", "--seeds", "4")
        process = self.start(*command)
        files = self.data / "niah"
        self.eventually_lines(files, process, 3)
        cli.interrupt(process)
        self.assertIn(str(files), self.finish(process).err)
        run = self.expect_done(*command)
        self.assertIn(" of 20 answers are in ", run.err)
        self.assertEqual(list(files.iterdir()), [])

    def eventually_lines(self, path, process, lines: int):
        """Until the file, or the one in the folder, has so many."""
        for _ in range(2000):
            file = next(iter(path.iterdir()), None) if path.is_dir() else path
            with contextlib.suppress(FileNotFoundError, AttributeError):
                if file.read_bytes().count(b"\n") >= lines:
                    return
            self.assertIsNone(process.poll(), "it ended before it could be interrupted")
            time.sleep(0.01)
        self.fail(f"{path} has no {lines} lines")

    @staticmethod
    def without_times(report: dict) -> dict:
        del report["run"]["started"], report["run"]["command"], report["run"]["reading"]
        for row in report["cells"] + report["summary"]:
            del row["first_token_seconds"], row["decode_tokens_per_second"], row["receipts"]["seconds"]
        return report

    def test_files_for_people_and_programs(self):
        csv_file, html = self.folder / "cells.csv", self.folder / "page.html"
        run = self.expect_done(*self.niah("--lengths", "1200,1500", "--depths", "0,100", "--seeds", "1", "--csv", csv_file, "--html", html))
        self.assertIn("% correct by depth and length", run.out)
        rows = list(csv.DictReader(csv_file.read_text().splitlines()))
        self.assertEqual([(row["length"], row["depth"], row["n"]) for row in rows],
                         [("1200", "0.0", "1"), ("1200", "100.0", "1"), ("1500", "0.0", "1"), ("1500", "100.0", "1")])
        page = html.read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
        self.assertEqual(len(data["cells"]), 4)
        self.assertRegex(data["run"]["command"], r"^palimpsest niah --model \S+ .*--html \S+$")
        self.assertRegex(data["run"]["started"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$")
        for flag in ("--csv", "--html"):
            self.expect_error(cli.FAILED, *self.niah(flag, self.folder / "no/such/file"), contains=["no/such/file", "folder"])

    def test_generate_score_and_compare(self):
        samples = self.expect_done("niah", "generate", "--model", self.tiny_model(), "--task", "niah_multikey_2,vt", "--lengths", "1500",
                                   "--depths", "0,50", "--seeds", "2").out.splitlines()
        lines = [json.loads(line) for line in samples]
        self.assertEqual([line["index"] for line in lines], list(range(8)))
        for line in lines:
            self.assertTrue(line["input"].endswith(line["question"]))
            self.assertTrue(0.98 * 1500 <= line["length"] <= 1500, line["length"])
        answers = "\n".join(json.dumps(line | {"pred": line["outputs"][0] if line["task"] == "vt" else line["outputs"][0].upper()})
                            for line in lines)
        scores = self.expect_done("niah", "score", self.write("answers.jsonl", answers), "--json").json["scores"]
        self.assertEqual([(row["task"], row["length"], row["n"], row["correct"]) for row in scores],
                         [("niah_multikey_2", 1500, 4, 1), ("vt", 1500, 4, 0.2)])
        self.assertIn("niah_multikey_2", self.expect_done("niah", "score", "-", stdin=answers.encode()).out)
        self.expect_error(cli.FAILED, "niah", "score", self.write("bad.jsonl", "{}"), contains=["bad.jsonl", "line 1"])
        one = self.expect_done(*self.niah("--lengths", "1200", "--seeds", "1", "--json")).out
        a, b = self.write("a.json", one), self.write("b.json", one)
        self.assertIn("0 of 1 rows differ", self.expect_done("niah", "compare", a, b).out)
        self.expect_error(cli.USAGE, "niah", "compare", a, contains=["FILE"])
        self.expect_error(cli.FAILED, "niah", "compare", a, self.write("c.json", "[]"), contains=["c.json", "niah --json"])
        self.expect_error(cli.USAGE, "niah", "scor", contains=["scor", "did you mean score"])

    def test_every_task_runs(self):
        squad = json.dumps({"data": [{"paragraphs": [
            {"context": f"Town {i} has a mill. " + " ".join(f"w{i}x{j}" for j in range(60)),
             "qas": [{"question": f"What has town {i}?", "answers": [{"text": "a mill"}]}]} for i in range(40)]}]})
        tasks = "niah_single_1,niah_single_2,niah_single_3,niah_multikey_1,niah_multikey_2,niah_multikey_3,niah_multivalue," \
                "niah_multiquery,vt,cwe,fwe,qa_1,passkey_7,passkey_64,passkey_uuid,kv_retrieval,babi_qa1,babi_qa2,babi_qa3,records"
        run = self.expect_done(*self.niah("--task", tasks, "--haystack", self.write("prose.txt", prose()), "--squad",
                                          self.write("squad.json", squad), "--lengths", "2000", "--depths", "50", "--seeds", "1", "--json"))
        self.assertEqual([cell["task"] for cell in run.json["cells"]], tasks.split(","))
        for cell in run.json["cells"]:
            self.assertTrue(0.99 * 2000 <= cell["prompt_tokens"] + 4 <= 2000, cell)
            self.assertEqual(cell["depth"], None if cell["task"] in ("cwe", "fwe", "records") else 50)

    def test_bad_input_is_named(self):
        refused = self.expect_error
        refused(cli.USAGE, *self.niah("--lengths", "1K,1024"), contains=["--lengths", "1024", "twice"])
        refused(cli.USAGE, *self.niah("--task", "vt,vt"), contains=["--task", "vt", "twice"])
        refused(cli.FAILED, *self.niah("--task", "cwe", "--turns", "2", "--lengths", "1800"), contains=["cwe", "--turns 2"])
        refused(cli.USAGE, *self.niah("--task", "qa_1"), contains=["qa_1", "--squad"])
        refused(cli.USAGE, *self.niah("--task", "qa_2", "--hotpotqa", self.write("q.json", "{}")), contains=["q.json", "HotpotQA"])
        refused(cli.FAILED, *self.niah("--haystack", self.write("short.txt", "A line of text here. " * 20), "--lengths", "1K"),
                contains=["short.txt", "too short for 1024 tokens"])
        refused(cli.FAILED, *self.niah("--resume", self.write("other.jsonl", "prose\n")), contains=["other.jsonl", "not the state"])
        refused(cli.USAGE, *self.niah("--endpoint-model", "m"), contains=["--endpoint"])
        refused(cli.USAGE, *self.niah("--endpoint", "localhost:1"), contains=["--endpoint", "http://"])
        refused(cli.USAGE, *self.niah("--endpoint", "http://127.0.0.1:1", "--policy", "snapkv:budget=50%"), contains=["--policy", "--endpoint"])
        refused(cli.USAGE, *self.niah("--endpoint", "http://127.0.0.1:1", "--question", "both"), contains=["--question both"])
        refused(cli.FAILED, *self.niah("--endpoint", "http://127.0.0.1:1"), contains=["127.0.0.1:1"])


class EndpointTest(serving.ServeTest):
    """The same cells on a server."""

    COMMAND = ["--task", "facts_noise", "--lengths", "1200", "--depths", "0,50", "--seeds", "2", "--turns", "2", "--max-tokens", "8"]

    def test_own_server_answers_and_compare_reads_both(self):
        server = self.serve()
        there = self.expect_done("niah", *self.COMMAND, "--endpoint", server.url + "/v1", "--json")
        for cell in there.json["cells"]:
            self.assertEqual((cell["policy"], cell["question"], cell["n"], cell["failed"]), ("endpoint", "visible", 2, 0))
            self.assertEqual((cell["resident_bytes"], cell["as_full"], cell["kept_all"]), (None, None, 0))
            self.assertGreater(cell["first_token_seconds"], 0)
            self.assertTrue(0.8 * 1200 <= cell["prompt_tokens"] <= 1200, cell)
        self.assertEqual(there.json["run"]["endpoint"], server.url + "/v1")
        here = self.expect_done("niah", *self.COMMAND, "--question", "visible", "--json")
        compared = self.expect_done("niah", "compare", self.write("a.json", here.out), self.write("b.json", there.out), "--json").json
        self.assertEqual((len(compared["rows"]), compared["only_a"], compared["only_b"]), (3, [], []))

    def test_server_that_goes_leaves_holes_and_the_rest_is_asked_again(self):
        server = self.serve()
        state = self.folder / "state.jsonl"
        command = ["niah", *self.COMMAND, "--seeds", "20", "--json", "--resume", state, "--endpoint-model",
                   server.call("GET", "/v1/models").json["data"][0]["id"], "--endpoint"]
        process = self.start(*command, server.url)
        self.eventually(lambda: state.exists() and state.read_bytes().count(b"\n") > 3, 60, "answers")
        server.stop(signal.SIGKILL)
        run = self.finish(process)
        self.assertEqual(run.status, cli.FAILED, str(run))
        rows = json.loads(run.out)["cells"]
        failed = sum(row["failed"] for row in rows)
        self.assertEqual(sum(row["n"] for row in rows) + failed, 80)
        self.assertGreater(failed, 0)
        self.assertRegex(run.err, rf"(?m)^palimpsest: {failed} of 80 answers did not come; [^\n]+\n\Z")


class ServerTest(serving.ServeTest):
    """The same cells on a server of ours, through its API."""

    COMMAND = ["niah", "--task", "facts_noise", "--lengths", "1200", "--depths", "0,50", "--seeds", "2", "--turns", "2", "--max-tokens", "8",
               "--policy", "snapkv:budget=30%", "--policy", "infinipot:pot=70%,catalyst=@c.txt", "--recall", "none", "--recall",
               "slices:budget=256", "--question", "both", "--json"]

    def documents(self, server) -> list:
        return server.call("GET", "/v1/documents").json["data"]

    def test_cells_are_those_of_this_process_and_nothing_stays_there(self):
        self.write("c.txt", "What matters here?")
        server = self.serve()
        here = self.expect_done(*self.COMMAND).json
        there = self.expect_done(*self.COMMAND, "--server", server.url).json
        self.assertEqual(len(here["cells"]), 2 * 2 * 7, "depths and turns; full and two policies twice, and snapkv with recall hidden")
        self.assertEqual(len(there["cells"]), len(here["cells"]))
        measured_apart = ("needle_seen", "device_bytes_peak", "first_token_seconds", "decode_tokens_per_second", "receipts", "recalled_slices")
        for a, b in zip(here["cells"], there["cells"]):
            for field in a:
                if field not in measured_apart:
                    self.assertEqual(a[field], b[field], (field, a["policy"], a["recall"], a["question"]))
            self.assertIsNone(b["needle_seen"])
            self.assertGreater(b["device_bytes_peak"], 0)
        self.assertEqual((there["run"]["server"], there["run"]["reading"]), (server.url, None))
        self.assertEqual(self.documents(server), [])

    def test_interrupted_run_takes_its_text_away_and_goes_on(self):
        server = self.serve()
        command = ["niah", "--lengths", "1500", "--seeds", "6", "--max-tokens", "4", "--json", "--resume", self.folder / "state.jsonl"]
        whole = self.expect_done(*command[:-2], "--server", server.url).json
        for stop in (cli.interrupt, subprocess.Popen.kill):
            process = self.start(*command, PALIMPSEST_SERVER=server.url)
            lines = (self.folder / "state.jsonl").read_bytes().count(b"\n") if stop is subprocess.Popen.kill else 0
            self.eventually(lambda: (self.folder / "state.jsonl").exists()
                            and (self.folder / "state.jsonl").read_bytes().count(b"\n") > lines + 3, 60, "answers")
            stop(process)
            self.assertNotEqual(self.finish(process).status, cli.DONE)
            if stop is cli.interrupt:
                self.assertEqual(self.documents(server), [])
        time.sleep(1)  # what was sent before the kill may still arrive
        left = self.documents(server)
        self.assertLessEqual([document["name"] for document in left], ["niah sample"], "killed, it could not take its text away")
        resumed = self.expect_done(*command, "--server", server.url)
        self.assertIn(" of 30 answers are in ", resumed.err)
        self.assertEqual([cell["correct"] for cell in resumed.json["cells"]], [cell["correct"] for cell in whole["cells"]])
        self.assertEqual(self.documents(server), left, "what is there already is somebody's")

    def test_what_a_server_cannot_give_is_refused(self):
        refused = self.expect_error
        command = ["niah", "--model", self.tiny_model(), "--server", "http://127.0.0.1:1"]
        refused(cli.USAGE, *command, "--oracle", contains=["--oracle", "--server"])
        refused(cli.USAGE, *command, "--endpoint", "http://127.0.0.1:2", contains=["--endpoint", "--server"])
        refused(cli.FAILED, *command, contains=["127.0.0.1:1"])

    def test_server_of_another_model_is_noticed(self):
        server = self.serve()
        run = self.run_command("niah", "--model", self.real_model(), "--lengths", "1K", "--server", server.url)
        self.assertEqual((run.status, run.out), (cli.FAILED, ""), str(run))
        self.assertRegex(run.err, r"(?m)^palimpsest: [^\n]+ a text of \d+ tokens has \d+ at the server, which runs SmolLM2[^\n]+ --model")
        self.assertEqual(self.documents(server), [])

    def test_server_that_goes_ends_the_run_which_goes_on_later(self):
        server = self.serve()
        state = self.folder / "state.jsonl"
        process = self.start("niah", "--lengths", "1500", "--seeds", "40", "--max-tokens", "4", "--server", server.url, "--resume", state)
        self.eventually(lambda: state.exists() and state.read_bytes().count(b"\n") > 3, 60, "answers")
        server.stop(signal.SIGKILL)
        run = self.finish(process)
        self.assertEqual((run.status, run.out), (cli.FAILED, ""), str(run))
        self.assertRegex(run.err, r"(?m)^palimpsest: single_noise, 1500 tokens, [^\n]+; the same command goes on from here: [^\n]+state\.jsonl\n\Z")


class ResultsTest(cli.CliTest):
    """deploy/results.py, which runs the command in parts."""

    def results(self, *arguments, policies=("--policy", "full")) -> subprocess.CompletedProcess:
        command = [sys.executable, "-B", cli.SOURCE / "deploy/results.py", "--model", self.tiny_model(), "--haystack",
                   self.write("prose.txt", prose()), "--palimpsest", os.environ["PALIMPSEST_TEST_BINARY"], "--lengths", "1600",
                   "--seeds", "3", *policies, "--state", self.folder / "state", *arguments]
        return subprocess.run([str(part) for part in command], env=self.environment(), capture_output=True, text=True)

    def test_parts_that_ran_are_not_run_again_and_the_table_counts_all(self):
        first = self.results()
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("Answers in each cell: 15.", first.stdout)
        self.assertRegex(first.stdout, r"(?m)^\| `full` \| hidden \| \d+ \(\d+ to \d+\), \d+ at \d+ % \|$")
        self.assertRegex(first.stdout, r"Of [\d,]+ tokens of texts [\d,]+ were computed")
        self.assertIn("| `full` | 1,600, visible |", first.stdout)
        self.assertIn("15 of 15", first.stdout)
        parts = sorted((self.folder / "state").glob("*/*.jsonl"))
        self.assertEqual([part.name for part in parts], ["1600-1.jsonl", "1600-2.jsonl", "1600-3.jsonl"])
        parts[0].unlink()
        second = self.results()
        without_seconds = lambda text: re.sub(r"\d+\.\d\d \| \d+ (\| \d+ \+ \d+ \|)", r"\1", text)  # one part was timed again
        self.assertEqual(without_seconds(second.stdout), without_seconds(first.stdout))
        self.assertEqual(second.stderr.count("10 of 10 answers are in "), 2)

    def test_all_puts_both_tables_between_their_lines(self):
        page = self.folder / "page.md"
        begin, end = "<!-- results.py --all: from here -->\n", "<!-- results.py --all: to here -->\n"
        page.write_text(f"before\n{begin}old\n{end}after\n")
        writer = pathlib.Path(os.environ["PALIMPSEST_TEST_TINY_MODEL_WRITER"]).with_name("write_induction_model")
        arguments = ["--all", "--into", page, "--lengths", "1600,2000,1800", "--seeds", "1", "--depths", "0,50", "--policy", "streaming:recent=25%",
                     "--recall", "none", "--induction", "10K", "--writer", writer]
        run = self.results(*arguments)
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        text = page.read_text()
        self.assertTrue(text.startswith("before\n" + begin) and text.endswith(end + "after\n"), text)
        self.assertNotIn("old", text)
        self.assertIn("| policy | question | 1,600 | 2,000 | 1,800 |", text)
        self.assertRegex(text, r"(?m)^\| `streaming:recent=25%` \| visible \|( \d+ \(\d+ to \d+\), \d+ at \d+ % \|){3}$")
        self.assertRegex(text, r"(?m)^\| 10,240 \| anchored \| `snapkv:budget=512`, recall `slices:words=0` \| 10 of 10 \| yes \|")
        page.write_text("nothing")
        self.assertIn("page.md does not have the lines", self.results(*arguments).stderr)

    def test_the_table_of_every_policy_has_a_row_for_each(self):
        page = self.folder / "page.md"
        begin, end = "<!-- results.py --policies: from here -->\n", "<!-- results.py --policies: to here -->\n"
        page.write_text(f"{begin}{end}")
        self.tiny_model(context=4096)  # a tenth of 3,000 tokens is a pot that has room for the question, byte by byte
        run = self.results("--policies", "--into", page, "--lengths", "3000", "--seeds", "1", "--depths", "50", policies=())
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
        named = {re.match(r"\| `([a-z0-9]+)", row)[1] for row in rows}
        first_table = (cli.SOURCE / "docs/policies.md").read_text().split("\n## ")[0]
        self.assertEqual(named, set(re.findall(r"(?m)^\| `([a-z0-9]+)` \|", first_table)))
        shares = r"( \d+ \(\d+ to \d+\) \|){4} \d+\.\d \| \d* \|$"
        self.assertEqual([row for row in rows if not re.search(shares, row)], [])
        self.assertEqual(len(rows), len(set(row.split("|")[1] for row in rows)))
        self.assertIn("ask for one of them", self.results("--policies", "--all").stderr)

    def test_the_table_of_attention_has_a_row_for_each_policy_that_chooses_in_a_whole_text(self):
        page = self.folder / "page.md"
        begin, end = "<!-- results.py --attention: from here -->\n", "<!-- results.py --attention: to here -->\n"
        page.write_text(f"{begin}{end}")
        self.tiny_model(context=4096)
        arguments = ["--attention", "--into", page, "--passages", "1", "--passage-bytes", "1500"]
        run = self.results(*arguments, policies=())
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        text = page.read_text()
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        first_table = (cli.SOURCE / "docs/policies.md").read_text().split("\n## ")[0]
        self.assertEqual({re.match(r"\| `([a-z0-9]+)", row)[1] for row in rows},
                         set(re.findall(r"(?m)^\| `([a-z0-9]+)` \|", first_table)) - {"full", "infinipot", "streaming"})
        held = [[float(number) for number in re.findall(r"(\d+\.\d) \(", row)] for row in rows]
        for of_policy in held:  # more of the text holds more of the attention
            self.assertEqual(of_policy, sorted(of_policy))
            self.assertTrue(0 < of_policy[0] and of_policy[2] <= 100, of_policy)
        self.assertEqual([row[1] for row in held], sorted((row[1] for row in held), reverse=True))
        done = sorted((self.folder / "state").glob("*/*.json"))
        self.assertEqual(len(done), 3 * len(rows))
        done[0].unlink()
        self.assertEqual(self.results(*arguments, policies=()).returncode, 0)
        self.assertEqual(page.read_text(), text)
        self.assertIn("does not have 1 passages of 9,000,000", self.results("--attention", "--into", page, "--passages", "1",
                                                                            "--passage-bytes", "9000000", policies=()).stderr)

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


class OtherServer(http.server.BaseHTTPRequestHandler):
    """Answers as servers of other makers do; every second question in a way of its own that is an error."""

    asked = []
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.asked.append((self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        number = len(self.asked)
        events = ["data:" + json.dumps({"choices": [{"delta": {"role": "assistant", "content": part}}]}) for part in ("", "it", " is 1")]
        if number == 2:
            return self.reply(400, "application/json", json.dumps({"error": {"message": "the prompt is too long"}}))
        if number == 4:
            return self.reply(200, "text/event-stream", events[1] + "\n\n" + 'data: {"error": {"message": "out of memory"}}\n\n')
        if number == 6:
            return self.reply(200, "text/event-stream", events[1] + "\n\n")
        if number == 8:
            return self.reply(200, "text/event-stream", "data: {nonsense\n\n")
        usage = 'data: {"choices": [], "usage": {"prompt_tokens": 500, "completion_tokens": 2}}'
        self.reply(200, "text/event-stream", ": hello\r\n\r\n" + "\r\n\r\n".join([*events, usage, "data: [DONE]"]) + "\r\n\r\n")

    def reply(self, status: int, kind: str, text: str):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


class OtherEndpointTest(cli.CliTest):
    def test_streams_of_other_makers_are_read_and_what_fails_is_a_hole(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherServer)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        run = self.run_command("niah", "--model", self.tiny_model(), "--task", "vt", "--lengths", "600", "--depths", "0,50", "--seeds", "5",
                               "--endpoint", f"http://127.0.0.1:{server.server_port}", "--endpoint-model", "their-model", "--json",
                               PALIMPSEST_API_KEY="secret")
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertRegex(run.err, r"(?m)^palimpsest: 4 of 10 answers did not come; the first, of vt, 600 tokens: [^\n]*400: the prompt is too long")
        cells = run.json["cells"]
        self.assertEqual([(cell["n"], cell["failed"]) for cell in cells], [(5, 0), (1, 4)], "the depths of a seed follow each other")
        self.assertEqual([(cell["prompt_tokens"], cell["output_tokens"], cell["correct"]) for cell in cells], [(500, 2, 0)] * 2)
        self.assertNotIn("secret", run.out + run.err)
        authorization, body = OtherServer.asked[0]
        self.assertEqual(authorization, "Bearer secret")
        self.assertEqual((body["model"], body["temperature"], body["max_tokens"], body["stream"]), ("their-model", 0, 30, True))
        self.assertEqual([message["role"] for message in body["messages"]], ["user"])
        self.assertRegex(body["messages"][0]["content"], r"(?s)VAR .*Which variables have the value \d{5} in the text\? The variables [^\n]+ are:$")


NUMBER = (int, float)
NULLABLE = (int, float, type(None))
RECEIPTS = {"seconds": {"load": float, "prefill": float, "recall": float, "decode": float, "first_token": float},
            "spilled_bytes": {"host": int, "ssd": int}, "recalled_bytes": {"host": int, "ssd": int}, "cached_tokens": int,
            "recomputed_tokens": int}
ROW = {"task": str, "length": int, "policy": str, "recall": str, "question": str, "turn": (int, type(None)), "n": int, "failed": int,
       "correct": NULLABLE, "interval": [NUMBER, NUMBER], "as_full": int, "kept_all": int, "degraded": int, "prompt_tokens": NULLABLE,
       "resident_tokens": NULLABLE, "resident_bytes": NULLABLE, "device_bytes_peak": NULLABLE,
       "recalled_slices": {"host": NUMBER, "ssd": NUMBER}, "needle_seen": NULLABLE, "first_token_seconds": NULLABLE,
       "decode_tokens_per_second": NULLABLE, "output_tokens": NULLABLE, "receipts": RECEIPTS}
RUN = {"model": str, "numerics": str, "first_seed": int, "seeds": int, "turns": int, "max_tokens": (int, type(None)), "command": str,
       "version": str, "started": str, "reading": {"tokens": int, "computed": int, "device_bytes_peak": int}}


class NeedleTest(cli.CliTest):
    """A small grid on the real model: the form of the report, and a floor for full."""

    def expect_form(self, value, form, place: str = "report"):
        """Exactly these fields, of these types."""
        if isinstance(form, dict):
            self.assertEqual(set(value), set(form), place)
            for name in form:
                self.expect_form(value[name], form[name], f"{place}.{name}")
        elif isinstance(form, list):
            self.assertEqual(len(value), len(form), place)
            for number, one in enumerate(form):
                self.expect_form(value[number], one, f"{place}[{number}]")
        else:
            self.assertIsInstance(value, form, place)
            self.assertTrue(form is bool or not isinstance(value, bool), place)

    def test_the_page_names_the_fields_of_the_report_and_no_others(self):
        page = (cli.SOURCE / "docs/needle-files.md").read_text()
        form = page[page.index('`{"run"'):page.index("`\n\n- A cell")]
        names = lambda value: {name for key in value for name in {key} | (names(value[key]) if isinstance(value[key], dict) else set())}
        known = names(RUN) | names(ROW) | {"run", "cells", "summary", "depth", "worst", "endpoint", "server"}
        self.assertEqual(set(re.findall(r'"(\w+)"', form)), known)

    def test_samples_of_every_task_have_the_length_within_one_percent(self):
        tasks = re.search(r"--task TASK,TASK \.\.\. +([\w, ]+);", self.expect_done("niah", "generate", "--help").out)[1].split(", ")
        self.assertGreater(len(tasks), 20)
        tasks = [task for task in tasks if task not in ("qa_1", "qa_2")]  # their paragraphs are the user's
        for length in (1536, 6000):
            run = self.expect_done("niah", "generate", "--model", self.real_model(), "--task", ",".join(tasks), "--haystack",
                                   self.write("long.txt", long_prose()), "--lengths", str(length), "--depths", "10,90", "--seeds", "1")
            samples = [json.loads(line) for line in run.out.splitlines()]
            self.assertEqual({sample["task"] for sample in samples}, set(tasks))
            for sample in samples:
                self.assertTrue(0.99 * length <= sample["length"] <= length, f"{sample['task']}: {sample['length']} of {length}")

    def test_grid_has_the_form_of_the_report_and_full_finds_the_needle(self):
        process = self.start("niah", "--model", self.real_model(), "--task", "single_noise,single_prose", "--haystack",
                             self.write("prose.txt", long_prose()), "--lengths", "512", "--depths", "10,90", "--seeds", "2",
                             "--policy", "random:budget=25%", "--json")
        done = self.finish(process, timeout=540)  # under ThreadSanitizer
        self.assertEqual(done.status, cli.DONE, str(done))
        run = done.json
        self.expect_form(run["run"], RUN)
        for cell in run["cells"]:
            self.expect_form(cell, ROW | {"depth": NULLABLE})
            self.assertLessEqual(cell["prompt_tokens"] + 32, cell["length"])
            self.assertGreaterEqual(cell["prompt_tokens"] + 32, 0.99 * cell["length"])
            self.assertEqual((cell["n"], cell["failed"], cell["degraded"]), (2, 0, 0))
        for row in run["summary"]:
            self.expect_form(row, ROW | {"worst": {"depth": NULLABLE, "correct": NULLABLE}})
            low, high = row["interval"]
            self.assertTrue(low <= row["correct"] <= high, row)
        right = {policy: [row["correct"] for row in run["summary"] if row["policy"] == policy] for policy in ("full", "random:budget=25%")}
        self.assertGreaterEqual(sum(right["full"]) / len(right["full"]), 0.95, right)
        self.assertLessEqual(sum(right["random:budget=25%"]) / len(right["random:budget=25%"]), 0.5, right)


if __name__ == "__main__":
    cli.main()
