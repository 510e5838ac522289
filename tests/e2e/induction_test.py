"""The induction model (docs/induction-model.md) through the whole path: text, catalog, spans, tiers, recall, answer."""

import json
import os
import pathlib
import subprocess

import cli

TOKENS, WINDOW = 12000, 4096
UNKNOWN = " ?"


class InductionTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.writer = str(pathlib.Path(os.environ["PALIMPSEST_TEST_TINY_MODEL_WRITER"]).with_name("write_induction_model"))
        self.document = self.folder / "needles.txt"
        lines = subprocess.run([self.writer, "document", self.document, str(TOKENS), "5"], check=True, stdout=subprocess.PIPE)
        *self.needles, self.absent = [json.loads(line) for line in lines.stdout.splitlines()]

    def model(self, window: int) -> pathlib.Path:
        path = self.folder / f"{window}.gguf"
        subprocess.run([self.writer, "model", path, str(window)], check=True)
        return path

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(PALIMPSEST_DEVICE_NUMERICS="bf16", **more)  # where int8 is the default, too

    def ask(self, question: str, *arguments: str) -> dict:
        return self.expect_done("ask", "--model", self.model(WINDOW), "--document", self.document, "--max-tokens", "8", "--json",
                                *arguments, question).json

    def test_a_text_of_three_windows_is_answered_from_all_of_it(self):
        ingested = self.expect_done("ingest", "--model", self.model(WINDOW), "--json", self.document).json["documents"][0]
        self.assertEqual(ingested["tokens"], TOKENS)
        for needle in self.needles:
            answer = self.ask(needle["question"])  # by default snapkv and recall, in spans
            self.assertEqual(answer["answer"], needle["answer"], needle)
            self.assertEqual(answer["finish_reason"], "stop")
            receipt = answer["receipt"]
            self.assertEqual(receipt["prefill"], "anchored")
            self.assertTrue(receipt["recall"].startswith("slices"), receipt["recall"])
            self.assertEqual(receipt["recomputed_tokens"] + receipt["cached_tokens"]["ssd"], TOKENS + 1)
        absent = self.ask(self.absent["question"])
        self.assertEqual((absent["answer"], absent["finish_reason"]), (UNKNOWN * 8, "length"))

    def test_a_pot_keeps_what_surprises_and_a_window_its_end(self):
        fillers = "/".join(str(168 + i) for i in range(8))
        for needle in self.needles:
            pot = self.ask(needle["question"], "--policy", f"infinipot:pot=1024,keep=512,catalyst_ids={fillers}")
            self.assertEqual(pot["answer"], needle["answer"], needle)
            window = self.ask(needle["question"], "--policy", "streaming:sink=1,recent=1024", "--prefill", "anchored")
            in_it = needle["depth"] > 1 - 1024 / TOKENS
            self.assertEqual(window["answer"], needle["answer"] if in_it else UNKNOWN * 8, needle)


if __name__ == "__main__":
    cli.main()
