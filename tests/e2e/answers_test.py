"""What the quick-start model answers, through the command: the goldens and a fact of the sample."""

import json
import signal
import time

import cli


class GoldenTest(cli.CliTest):
    def check(self, name: str, *prompt):
        golden = json.loads((cli.GOLDEN / f"{name}.json").read_text())
        found = self.expect_done("inspect", *prompt, "--generate", len(golden["greedy"]), "--json", "--model",
                                 self.real_model()).json
        self.assertEqual(found["ids"], golden["ids"])
        self.assertEqual(found["generated"], golden["greedy"])
        log_probability = {token: value for token, _, value in found["top"]}
        worst = max(abs(log_probability[token] - value) for token, _, value in golden["top"][:5])
        print(f"{name}: worst log-probability error of the five best {worst:.4f}")
        self.assertLessEqual(worst, 0.1)

    def test_prompt_file_gives_the_golden_logits(self):
        self.check("logits_g1", "--prompt-file", cli.GOLDEN / "g1.txt")

    def test_token_ids_give_the_golden_logits(self):
        golden = json.loads((cli.GOLDEN / "logits_short.json").read_text())
        self.check("logits_short", "--token-ids", self.write("ids.json", json.dumps(golden["ids"])))


class SampleTest(cli.CliTest):
    def test_fact_of_the_sample_is_found_and_shown(self):
        question, expected = [line.split("\t") for line in (cli.SAMPLE.parent / "questions.txt").read_text().splitlines()
                              if not line.startswith("#")][0]
        run = self.expect_done("ask", "--document", cli.SAMPLE, question, "--model", self.real_model())
        self.assertIn(expected, run.out)
        self.assertIn("prompt ", run.err)

    def test_document_longer_than_the_window_is_read_in_spans(self):
        document = self.write("long.md", cli.SAMPLE.read_text() * 3)
        self.expect_error(cli.FAILED, "ask", "--document", document, "--prefill", "exact", "Who?", "--model", self.real_model(),
                          contains=["exact", "8192"])
        run = self.expect_done("ask", "--document", document, "--max-tokens", "4", "Who keeps the lighthouse?", "--json",
                               "--model", self.real_model())
        receipt = run.json["receipt"]
        self.assertEqual(receipt["prefill"], "anchored")
        self.assertIn("8192", receipt["prefill_reason"])
        self.assertTrue(receipt["policy"].startswith("snapkv:budget=1024"), receipt["policy"])
        self.assertGreater(receipt["prompt_tokens"], 8192)
        self.assertTrue(receipt["recall"].startswith("slices:budget=512"), receipt["recall"])
        self.assertGreater(receipt["recalled"]["host"]["slices"], 0)
        self.assertLess(receipt["resident_tokens"], 1024 + 512 + 200)
        self.assertEqual(receipt["degraded"], [])

    def test_arena_too_small_for_the_document_says_both_sizes(self):
        self.expect_error(cli.FAILED, "ask", "--document", cli.SAMPLE, "Who?", "--device-arena-bytes", "16MiB", "--model",
                          self.real_model(), contains=["device.arena_bytes", "bytes of device memory"])

    def test_interrupted_prefill_goes_on_when_repeated(self):
        process = self.start("ingest", cli.SAMPLE, "--model", self.real_model())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (self.data / "lock").exists():
            time.sleep(0.02)
        time.sleep(2.5)  # the weights are loaded in one second, the document takes several
        process.send_signal(signal.SIGTERM)
        run = self.finish(process)
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertEqual(run.out, "")
        self.assertRegex(run.err, r"(?m)^palimpsest: interrupted in [^\n]+lighthouse.md[^\n]+\n\Z")
        again = self.expect_done("ingest", cli.SAMPLE, "--json", "--model", self.real_model()).json["documents"]
        self.assertEqual(len(again), 1)
        self.assertEqual(len(self.expect_done("documents", "list", "--json").json["documents"]), 1)


if __name__ == "__main__":
    cli.main()
