"""What users, disks and other processes do wrong: one clear line, the exit status, nothing lost. On a tiny model."""

import contextlib
import os
import re
import subprocess
import time
import unittest

import cli


class BadModelTest(cli.CliTest):
    def ask(self, model: bytes, *contains: str):
        path = self.write("m.gguf", model)
        self.expect_error(cli.FAILED, "ask", "--model", path, "hi", contains=["m.gguf", *contains])

    def good(self) -> bytes:
        return self.tiny_model().read_bytes()

    def test_file_that_is_not_gguf(self):
        self.ask(b"MZ\x90\x00" + bytes(1000), "GGUF")
        self.ask(b"", "m.gguf")

    def test_truncated_file(self):
        good = self.good()
        for size in (10, 1000, len(good) // 2, len(good) - 1):
            with self.subTest(size=size):
                self.ask(good[:size])

    def test_wrong_counts_and_overflowing_offsets(self):
        good = self.good()
        self.ask(good[:8] + b"\xff" * 8 + good[16:], "tensors")
        self.ask(good[:16] + b"\xff" * 8 + good[24:], "keys")
        at = good.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8 + 4  # dimensions, one size, type
        self.ask(good[:at] + b"\xe0" + b"\xff" * 7 + good[at + 8:], "output_norm.weight")

    def test_another_architecture(self):
        self.ask(self.good().replace(b"llama", b"gemma", 1), "gemma", "llama")

    def test_missing_tensor(self):
        self.ask(self.good().replace(b"output_norm.weight", b"output_nrom.weight"), "output_norm.weight")

    def test_unsupported_tensor_type(self):
        good = self.good()
        at = good.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
        self.ask(good[:at] + b"\x63" + good[at + 1:], "output_norm.weight")

    def test_model_that_is_not_there(self):
        self.expect_error(cli.FAILED, "ask", "hi", contains=["deploy/quickstart.sh"])
        self.tiny_model()
        self.expect_error(cli.FAILED, "ask", "--model", "SmolLM2-135M", "hi",
                          contains=["'SmolLM2-135M'", "there are: SmolLM2-135M-Instruct.Q4_1.gguf"])
        self.expect_error(cli.FAILED, "ask", "--model", "./none.gguf", "hi", contains=["none.gguf", "does not exist"])


class BadDocumentTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.tiny_model()

    def fails(self, *arguments, contains, **more):
        self.expect_error(cli.FAILED, *arguments, contains=contains, **more)

    def test_bytes_that_are_not_utf8(self):
        path = self.write("bad.txt", b"good text \xc3\x28")
        self.fails("ingest", path, contains=["bad.txt", "10"])
        self.fails("ask", "--document", path, "Who?", contains=["bad.txt", "10"])
        self.fails("ask", b"who \xff".decode(errors="surrogateescape"), contains=["the question", "4"])
        self.assertEqual(self.expect_done("documents", "list", "--json").json, {"documents": []})

    def test_empty_document_and_empty_question(self):
        self.fails("ingest", self.write("empty.txt", ""), contains=["empty.txt", "empty"])
        self.fails("ask", "", contains=["question is empty"])
        self.fails("ingest", "-", contains=["empty"])

    def test_exact_prefill_beyond_the_window(self):
        window = f"trained for {cli.TINY_WINDOW}"
        path = self.write("long.txt", "x1" * cli.TINY_WINDOW)
        self.fails("ask", "--prefill", "exact", "--document", path, "Who?",
                   contains=[f"{2 * cli.TINY_WINDOW} of the document", window, "prefill auto"])
        self.fails("ask", "--policy", "full", "--document", path, "Who?", contains=["policy full", window, "snapkv"])
        self.fails("ask", "--prefill", "exact", "-", stdin=b"x1" * cli.TINY_WINDOW, contains=["tokens", window])
        path = self.write("a.txt", "x1" * (cli.TINY_WINDOW // 2 - 100))
        self.fails("ask", "--prefill", "exact", "--document", path, "y2" * 100, contains=["of the document", window])

    def test_question_longer_than_the_window(self):
        path = self.write("a.txt", "Ships have sails.")
        self.fails("ask", "--document", path, "-", stdin=b"x1" * cli.TINY_WINDOW,
                   contains=["the question has", f"trained for {cli.TINY_WINDOW}"])
        self.fails("ask", "-", stdin=b"x" * 2000, contains=["at most 1000"],
                   PALIMPSEST_LIMITS_QUESTION_BYTES="1000")

    def test_document_above_the_limit_of_bytes(self):
        self.fails("ingest", self.write("a.txt", "x" * 3000), "--limits-document-bytes", "2KiB",
                   "--limits-question-bytes", "1KiB", contains=["a.txt", "3000", "2048"])

    def test_unknown_document(self):
        self.fails("ask", "--document", "doc-0123456789abcdef", "Who?", contains=["doc-0123456789abcdef"])
        self.fails("ask", "--document", "nothing.txt", "Who?", contains=["nothing.txt", "documents list"])
        self.fails("documents", "show", "doc-0123456789abcdef", contains=["doc-0123456789abcdef"])
        self.fails("documents", "delete", "doc-0123456789abcdef", contains=["doc-0123456789abcdef"])
        self.fails("ingest", "nothing.txt", contains=["nothing.txt", "does not exist"])


class BadPolicyTest(cli.CliTest):
    """Each wish is refused before the weights are loaded: one line with the number and what is allowed."""

    def setUp(self):
        super().setUp()
        self.tiny_model()
        self.document = self.write("a.txt", "Ships have sails. " * 20)

    def test_policies_that_cannot_be_written_so(self):
        for policy, *contains in (
                ("snapkv:budget=0", "budget='0'", "1 to"), ("snapkv:budget=0%", "1% to 100%"),
                ("snapkv:budget=32", "budget=32", "window=32", "33"), ("random:budget=x", "budget='x'", "1 to"),
                ("snapkv:kernel=4", "kernel='4'", "odd number from 1"), ("snapkv:window=0", "window='0'", "from 1"),
                ("infinipot:alpha=2", "alpha='2'", "0 to 1"), ("infinipot:pot=512,keep=512", "keep=512", "pot=512"),
                ("snapvk", "did you mean snapkv?"), ("snapkv:budgte=4", "did you mean budget?"),
                ("lookm:images=9-5", "images='9-5'", "ascending and apart"), ("lookm:images=0-9/5-20", "ascending and apart"),
                ("lookm:budget=5%", "budget=5%", "recent=10%"), ("h2o:heavy=60%,recent=60%", "120%", "100%"),
                ("snapkv:merge=sum", "merge='sum'", "values"), ("streaming:merge=values", "no key 'merge'"),
                ("adakv:floor=2", "floor='2'", "0 to 1"), ("pyramidkv:budget=20", "budget=20", "window=32", "33"),
                ("expected:future=0", "future='0'", "from 1 to 65536"), ("chunkkv:chunk=0", "chunk='0'", "from 1"),
                ("infinipot:score=full", "score=full", "allowed: cap"),
                ("infinipot:score=best", "score", "cap"), ("infinipot:catalyst=Well?", "@FILE")):
            with self.subTest(policy=policy):
                self.expect_error(cli.USAGE, "ask", "--policy", policy, "--document", self.document, "Who?",
                                  contains=contains)

    def test_policies_that_do_not_fit_the_prompt(self):
        long = self.write("long.txt", "x1" * cli.TINY_WINDOW)
        self.write("long_catalyst.txt", "Summarize. " * 300)
        about = ["--document", self.document, "Who?"]
        for arguments, *contains in (
                (["--policy", "snapkv:budget=1%", *about], "budget=1%"),
                (["--policy", "infinipot:pot=64,keep=32", *about], "pot of 64", "or more"),
                (["--policy", "infinipot:pot=1M", *about], "pot of 1048576", f"trained for {cli.TINY_WINDOW}"),
                (["--policy", f"infinipot:pot=1K,catalyst=@{self.folder}/long_catalyst.txt", *about], "pot of 1024"),
                (["--policy", "infinipot:catalyst=@nothing.txt", *about], "nothing.txt"),
                (["--policy", "infinipot:pot=1K,catalyst=question", *about], "needs the question; add --question visible"),
                (["--policy", "infinipot:pot=1K,catalyst=question", "--question", "visible", "Who?"], "0 documents"),
                (["--policy", "infinipot", "--prefill", "exact", *about], "prefill exact", "prefill pot or auto"),
                (["--policy", "snapkv:budget=64", "--prefill", "pot", *about], "infinipot:score=snapkv"),
                (["--prefill", "anchored", "Who?"], "0 documents"),
                (["--policy", "lookm", "--prefill", "anchored", *about], "merges what it drops", "merge=none"),
                (["--policy", "lookm", "--recall", "all", *about], "merged into them", "recall none"),
                (["--policy", "lookm:images=5-1048576", *about], "image 5-1048576", "0 to"),
                (["--policy", "h2o:heavy=1%,recent=1%", *about], "heavy=1%", "prefix"),
                (["--policy", f"snapkv:budget={cli.TINY_WINDOW}", "--document", long, "Who?"],
                 f"keeps {cli.TINY_WINDOW}", f"trained for {cli.TINY_WINDOW}", "at most")):
            with self.subTest(arguments=arguments):
                self.expect_error(cli.FAILED, "ask", *arguments, contains=contains)


class DataFolderTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()
        self.document = self.write("a.txt", "Ships have sails. " * 20)

    def test_folder_below_a_file(self):
        self.write("file", "")
        for command in (["documents", "list"], ["ingest", self.document, "--model", self.model]):
            self.expect_error(cli.FAILED, *command, "--data-dir", self.folder / "file/data", contains=["file"])

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_folder_without_permission(self):
        self.data.chmod(0o500)
        self.addCleanup(self.data.chmod, 0o700)
        self.expect_error(cli.FAILED, "ingest", self.document, contains=["permission"])

    def test_full_disk_is_said_and_the_catalog_survives(self):
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", small], capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("a small file system cannot be mounted: needs root")
        self.addCleanup(subprocess.run, ["umount", "-l", small])
        data = ["--data-dir", small, "--model", self.model]
        kept = self.expect_done("ingest", self.document, *data, "--json").json["documents"][0]["id"]
        ballast = small / "ballast"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        other = self.write("b.txt", "Other text, " * 200)
        run = self.run_command("ingest", other, *data)
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertRegex(run.err, r"\Apalimpsest: [^\n]+\n\Z")
        self.assertIn("space", run.err)
        ballast.unlink()
        self.expect_done("ingest", other, *data)
        listed = self.expect_done("documents", "list", *data[:2], "--json").json["documents"]
        self.assertEqual(len(listed), 2)
        self.assertIn(kept, [d["id"] for d in listed])

    def test_folder_in_use_names_the_process(self):
        holder = self.start("ingest", self.document, "-")  # waits for standard input, with the folder locked
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lock = self.data / "lock"
            if lock.exists() and lock.read_text().startswith(f"{holder.pid}\n"):
                break
            time.sleep(0.02)
        self.expect_error(cli.FAILED, "documents", "list", contains=["in use", f"process {holder.pid}"])
        self.assertEqual(self.finish(holder, b"More text.").status, cli.DONE)
        self.expect_done("documents", "list")


class InterruptTest(cli.CliTest):
    def test_interrupted_ingest_keeps_the_text_and_goes_on_when_repeated(self):
        self.tiny_model()
        document = self.write("a.txt", "x1" * 900)
        first = self.start("ingest", document, "-")
        listed = b""
        while b"a.txt" not in listed:  # the first document is done, the second one is being read
            listed = first.stdout.readline()
            self.assertTrue(listed, "ended too early")
        cli.interrupt(first)
        run = self.finish(first)
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertEqual(len(re.findall(r"(?m)^palimpsest: interrupted[^\n]*$", run.err)), 1, str(run))
        again = self.expect_done("ingest", document, "-", "--json", stdin=b"More.").json["documents"]
        self.assertEqual([d["already_known"] for d in again], [True, False])


if __name__ == "__main__":
    cli.main()
