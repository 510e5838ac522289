"""Flags, help and exit statuses of the command, on a tiny model."""

import json
import os
import re
import subprocess

import cli


class UsageTest(cli.CliTest):
    def test_version_has_the_revision(self):
        self.assertRegex(self.expect_done("--version").out, r"\Apalimpsest \d+\.\d+\.\d+ \([0-9a-f]{7,}[-\w]*\)\n\Z")

    def test_help_lists_the_commands(self):
        for arguments in (["help"], ["--help"]):
            out = self.expect_done(*arguments).out
            for command in ("ask", "ingest", "documents", "inspect", "help"):
                self.assertRegex(out, rf"(?m)^ +{command}\b")

    def test_help_of_a_command_lists_its_flags(self):
        for arguments in (["help", "ask"], ["ask", "--help"]):
            out = self.expect_done(*arguments).out
            for flag in ("--document", "--prefill", "--policy", "--recall", "--question", "--max-tokens", "--temperature",
                         "--seed", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--stop", "--data-dir",
                         "--model", "--config", "--json", "--print-effective-config"):
                self.assertIn(flag, out)

    def test_nothing_to_do_shows_the_help_and_is_wrong_usage(self):
        run = self.run_command()
        self.assertEqual((run.status, run.out), (cli.USAGE, ""))
        self.assertIn("ingest", run.err)

    def test_unknown_flag_suggests_the_nearest(self):
        self.expect_error(cli.USAGE, "ask", "--tempreture", "1", "hi",
                          contains=["'--tempreture'", "did you mean --temperature?"])
        self.expect_error(cli.USAGE, "ask", "hi", "--max_token=4", contains=["did you mean --max-tokens?"])
        self.expect_error(cli.USAGE, "documents", "list", "--jsn", contains=["did you mean --json?"])
        self.expect_error(cli.USAGE, "--json", "documents", "list",
                          contains=["--json belongs behind the command's name: `palimpsest documents list --json ...`"])

    def test_unknown_command_suggests_the_nearest(self):
        self.expect_error(cli.USAGE, "inget", "x", contains=["'inget'", "did you mean ingest?"])
        self.expect_error(cli.USAGE, "documents", "lst", contains=["did you mean list?"])
        self.expect_error(cli.USAGE, "help", "akk", contains=["did you mean ask?"])

    def test_command_to_come_says_what_to_do_instead(self):
        self.expect_error(cli.FAILED, "plan", contains=["plan is not there yet", "receipt"])

    def test_question_without_quotes_is_explained(self):
        self.expect_error(cli.USAGE, "ask", "what", "is", "it", contains=["2 arguments too many", "quotes"])

    def test_missing_arguments_are_wrong_usage(self):
        self.expect_error(cli.USAGE, "ask", contains=["QUESTION"])
        self.expect_error(cli.USAGE, "ingest", contains=["PATH"])
        self.expect_error(cli.USAGE, "documents", contains=["help documents"])
        self.expect_error(cli.USAGE, "documents", "show", contains=["ID"])
        self.expect_error(cli.USAGE, "inspect", contains=["--prompt-file"])
        self.expect_error(cli.USAGE, "ask", "--max-tokens", contains=["--max-tokens"])

    def test_values_out_of_range_are_wrong_usage(self):
        self.expect_error(cli.USAGE, "ask", "--max-tokens", "0", "hi", contains=["generate.max_tokens"])
        self.expect_error(cli.USAGE, "ask", "--temperature", "-1", "hi", contains=["generate.temperature"])
        self.expect_error(cli.USAGE, "ask", "--top-p", "much", "hi", contains=["generate.top_p"])
        self.expect_error(cli.USAGE, "ask", "--stop", "", "hi", contains=["--stop"])
        self.expect_error(cli.USAGE, "ask", "--question", "seen", "hi", contains=["hidden or visible"])
        self.expect_error(cli.USAGE, "inspect", "--prompt-file", "x", "--generate", "-4", contains=["--generate"])

    def test_recall_out_of_its_ranges_is_wrong_usage(self):
        for recall, part in (("slices:budget=0", "from 1 to"), ("slices:slice=5", "8, 16, 32 or 64"),
                             ("slices:index=q3", "did you mean q2?"), ("slices:budget=8", "less than one slice"),
                             ("all:budget=5", "budget")):
            self.expect_error(cli.USAGE, "ask", "--recall", recall, "hi", contains=[part])

    def test_policy_with_a_typing_mistake_is_wrong_usage(self):
        self.expect_error(cli.USAGE, "ask", "--policy", "snapkv:budgte=4", "hi", contains=["did you mean budget?"])
        self.expect_error(cli.USAGE, "ask", "--recall", "slces", "hi", contains=["did you mean slices?"])
        self.expect_error(cli.USAGE, "ask", "--prefill", "exat", "hi", contains=["did you mean exact?"])

    def test_settings_come_from_file_environment_and_flags_in_this_order(self):
        config = self.write("c.yaml", "generate:\n  max_tokens: 5\n  top_k: 7\nlog:\n  level: warn\n")
        out = self.expect_done("ask", "hi", "--config", config, "--max-tokens", "9", "--print-effective-config",
                               PALIMPSEST_GENERATE_TOP_K="8").out
        self.assertRegex(out, r"max_tokens: 9 .*flag")
        self.assertRegex(out, r"top_k: 8 .*PALIMPSEST_GENERATE_TOP_K")
        self.assertRegex(out, r"level: warn .*c\.yaml line 5")

    def test_unknown_setting_is_wrong_usage_with_its_line(self):
        config = self.write("c.yaml", "devise:\n  arena_bytes: 1GiB\n")
        self.expect_error(cli.USAGE, "documents", "list", "--config", config, contains=["line 1", "did you mean device?"])
        self.expect_error(cli.USAGE, "documents", "list", PALIMPSEST_DATADIR="x", contains=["PALIMPSEST_DATA_DIR"])
        self.expect_error(cli.FAILED, "documents", "list", "--config", "none.yaml", contains=["none.yaml"])

    def test_answer_as_json_is_one_object_and_nothing_else(self):
        self.tiny_model()
        run = self.expect_done("ask", "hi", "--json", "--max-tokens", "3")
        self.assertEqual(run.out.count("\n"), 1)
        self.assertEqual(set(run.json), {"answer", "finish_reason", "documents", "usage", "receipt"})
        self.assertEqual(run.json["usage"]["completion_tokens"], 3)
        self.assertEqual(run.json["finish_reason"], "length")
        self.assertEqual(run.json["receipt"]["policy"], "full")
        self.assertEqual(run.json["receipt"]["question"], "hidden")
        self.assertIsInstance(run.json["receipt"]["seconds"]["queue"], float)

    def test_streamed_answer_is_the_answer_of_json(self):
        self.tiny_model()
        asked = ["ask", "Tell me something", "--max-tokens", "40"]
        streamed = self.expect_done(*asked)
        self.assertEqual(streamed.out, self.expect_done(*asked, "--json").json["answer"] + "\n")
        self.assertIn("prompt ", streamed.err)

    def test_question_can_come_from_standard_input(self):
        self.tiny_model()
        asked = ["--json", "--max-tokens", "8"]
        self.assertEqual(self.expect_done("ask", "-", *asked, stdin=b"Who?").json["answer"],
                         self.expect_done("ask", "Who?", *asked).json["answer"])

    def test_equal_seeds_give_equal_answers(self):
        self.tiny_model()

        def answer(seed: int) -> str:
            return self.expect_done("ask", "Who?", "--json", "--max-tokens", "30", "--temperature", "1", "--seed",
                                    seed).json["answer"]

        self.assertEqual(answer(1), answer(1))
        self.assertNotEqual(answer(1), answer(2))

    def test_answer_ends_before_a_stop_string(self):
        self.tiny_model()
        asked = ["ask", "Who?", "--json", "--max-tokens", "40", "--temperature", "1", "--seed", "3"]
        whole = self.expect_done(*asked).json["answer"]
        stop = whole[len(whole) // 2:][:2]
        cut = self.expect_done(*asked, "--stop", "never in there", "--stop", stop).json
        self.assertEqual(cut["answer"], whole[:whole.index(stop)])
        self.assertEqual(cut["finish_reason"], "stop")


class DocumentsTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.tiny_model()

    def test_documents_are_listed_shown_and_deleted(self):
        self.assertEqual(self.expect_done("documents", "list", "--json").json, {"documents": []})
        path = self.write("a.txt", "Ships have sails.\n" * 20)
        ingested = self.expect_done("ingest", path, "--json").json["documents"][0]
        self.assertEqual(ingested["bytes"], 360)
        self.assertFalse(ingested["already_known"])
        self.assertGreater(ingested["tier_bytes"]["ssd"], 0)
        self.assertEqual(ingested["blocks"], (ingested["tokens"] + 63) // 64 * 2)
        listed = self.expect_done("documents", "list", "--json").json["documents"]
        self.assertEqual([d["id"] for d in listed], [ingested["id"]])
        self.assertIn(ingested["id"], self.expect_done("documents", "list").out)
        shown = self.expect_done("documents", "show", ingested["id"][:8], "--json").json
        self.assertEqual(shown["text"], "Ships have sails.\n" * 20)
        self.assertTrue(self.expect_done("documents", "show", ingested["id"]).out.endswith("sails.\n"))
        deleted = self.expect_done("documents", "delete", ingested["id"][:10], "--json").json
        self.assertEqual(deleted, {"deleted": ingested["id"]})
        self.assertEqual(self.expect_done("documents", "list", "--json").json, {"documents": []})

    def test_equal_content_is_known_again_whatever_its_path(self):
        first = self.expect_done("ingest", self.write("a.txt", "The sea."), "--json").json["documents"][0]
        again = self.expect_done("ingest", "-", "--json", stdin=b"The sea.").json["documents"][0]
        self.assertEqual((again["id"], again["already_known"]), (first["id"], True))

    def test_folder_is_ingested_with_all_its_texts(self):
        for name in ("d/b.md", "d/sub/c.txt", "d/a.pdf", "d/.d.txt"):
            self.write(name, f"Text of {name}")
        documents = self.expect_done("ingest", "d", "--json").json["documents"]
        self.assertEqual([d["path"] for d in documents], ["d/b.md", "d/sub/c.txt"])

    def test_bad_document_does_not_stop_the_others(self):
        self.write("d/a.txt", b"\xff")
        self.write("d/b.txt", "good")
        run = self.run_command("ingest", "d", "--json")
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertEqual([d["path"] for d in run.json["documents"]], ["d/b.txt"])
        self.assertEqual([f["path"] for f in run.json["failed"]], ["d/a.txt"])
        self.assertIn("1 of 2 documents failed", run.err)

    def test_document_named_by_path_is_ingested_and_by_id_found(self):
        path = self.write("a.txt", "Ships have sails.\n" * 50)
        first = self.expect_done("ask", "--document", path, "Who?", "--json", "--max-tokens", "2").json
        self.assertEqual(first["receipt"]["recomputed_tokens"], 0)
        second = self.expect_done("ask", "--document", first["documents"][0], "Who?", "--json", "--max-tokens", "2").json
        self.assertEqual(second["documents"], first["documents"])
        self.assertEqual(second["answer"], first["answer"])
        self.assertEqual(second["receipt"]["recomputed_tokens"], 0)
        self.assertGreater(second["receipt"]["cached_tokens"]["ssd"], 100)
        # What the disk holds is of no use to another folder's keys.
        (self.data / "keys" / "tier.key").unlink()
        self.expect_error(cli.FAILED, "ask", "--document", path, "Who?", contains=["tier.key"])

    def test_without_host_memory_it_ends_with_a_line_and_never_a_signal(self):
        if cli.sanitized():
            self.skipTest("a build with sanitizers takes address space by the terabyte")
        command = " ".join([os.environ["PALIMPSEST_TEST_BINARY"], "ask", "--data-dir", str(self.data), "--model",
                            str(self.tiny_model()), "Who?", "--max-tokens", "2"])
        ended = {}
        for mib in [*range(64, 1600, 64), 2400]:
            run = subprocess.run(["bash", "-c", f"ulimit -v {mib * 1024}; exec {command}"], capture_output=True, text=True,
                                 timeout=cli.PATIENCE, check=False)
            ended[mib] = run.returncode
            self.assertIn(run.returncode, (0, cli.FAILED), f"{mib} MiB: {run.stderr}")
            if run.returncode == cli.FAILED:
                self.assertRegex(run.stderr, "memory|out of what", f"{mib} MiB")
        self.assertIn(0, ended.values())
        self.assertIn(cli.FAILED, ended.values())

    def test_storage_is_shown_and_checked_and_what_is_damaged_is_computed_again(self):
        path = self.write("a.txt", "Ships have sails.\n" * 50)
        self.assertIn("no SSD tier", self.expect_done("storage", "status").out)
        first = self.expect_done("ask", "--document", path, "Who?", "--json", "--max-tokens", "2").json
        status = self.expect_done("storage", "status", "--json").json
        self.assertFalse(status["verified"])
        self.assertGreater(status["tiers"][0]["kinds"]["block"]["values"], 2)
        self.assertGreater(status["tiers"][0]["used_bytes"], 10_000)
        verified = self.expect_done("storage", "verify", "--json").json
        self.assertTrue(verified["verified"])
        self.assertEqual(verified["tiers"][0]["damaged"], [])
        tables = sorted((self.data / "tier" / "0" / "db").glob("*.sst"), key=lambda table: table.stat().st_size)
        with open(tables[-1], "r+b") as table:
            table.seek(tables[-1].stat().st_size // 3)
            table.write(b"\xff" * 64)
        run = self.run_command("storage", "verify", "--json")
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertGreaterEqual(len(run.json["tiers"][0]["damaged"]), 1)
        self.assertIn("computed again", run.err)
        self.expect_done("storage", "verify")
        second = self.expect_done("ask", "--document", path, "Who?", "--json", "--max-tokens", "2").json
        self.assertEqual(second["answer"], first["answer"])

    def test_several_documents_are_asked_together(self):
        a, b = self.write("a.txt", "One sea."), self.write("b.txt", "Two seas.")
        answer = self.expect_done("ask", "--document", a, "--document", b, "Which?", "--json", "--max-tokens", "2").json
        self.assertEqual(len(answer["documents"]), 2)
        self.assertIn("2 documents", answer["receipt"]["prefill_reason"])


class InspectTest(cli.CliTest):
    def test_text_and_its_ids_give_the_same(self):
        self.tiny_model()
        text = self.expect_done("inspect", "--prompt-file", self.write("p.txt", "<|im_start|>user\nhi"), "--generate", "4",
                                "--json").json
        self.assertEqual(set(text), {"ids", "top", "generated"})
        self.assertEqual(text["ids"][0], 1, "special tokens are parsed")
        self.assertEqual(len(text["top"]), 10)
        ids = self.expect_done("inspect", "--token-ids", self.write("ids.json", json.dumps(text["ids"])), "--generate",
                               "4", "--json").json
        self.assertEqual(ids, text)
        self.assertEqual(text["generated"][0], text["top"][0][0])

    def test_bad_ids_are_refused(self):
        self.tiny_model()
        for bad in ("{}", "[1.5]", "[-1]", "[99999]", "[]", "[1"):
            self.expect_error(cli.FAILED, "inspect", "--token-ids", self.write("ids.json", bad))

    def test_text_for_people_shows_tokens(self):
        self.tiny_model()
        out = self.expect_done("inspect", "--prompt-file", self.write("p.txt", "hi")).out
        self.assertEqual(len(re.findall(r"(?m)^ *\d+ +-?\d+\.\d+ +-\d+\.\d+ ", out)), 10, out)


if __name__ == "__main__":
    cli.main()
