"""`palimpsest ask --policy NAME` on a tiny model: each policy in exact, anchored and pot prefill, by its receipt."""

import cli

SIZE = 64  # tokens of a tile
# The tiny model's: two layers of two KV heads.
HEADS = 4


class AskTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.tiny_model()
        self.document = self.write("a.txt", " ".join(f"line {i} says {i * i % 97}." for i in range(80)))

    def ask(self, policy: str, prefill: str, *arguments: str) -> dict:
        return self.expect_done("ask", "--document", self.document, "--policy", policy, "--prefill", prefill, "--recall", "none",
                                "--max-tokens", "6", "--json", *arguments, "Who?").json["receipt"]

    def test_every_policy_keeps_its_budget_on_the_device(self):
        for name in ("knorm", "keydiff", "expected", "sirllm", "pyramidkv", "adakv", "chunkkv", "criticalkv", "kvzip"):
            for prefill in ("exact", "anchored"):
                for question in ("hidden", "visible"):
                    with self.subTest(policy=name, prefill=prefill, question=question):
                        plain = self.ask("snapkv:budget=128", prefill, "--question", question)
                        receipt = self.ask(f"{name}:budget=128", prefill, "--question", question)
                        self.assertTrue(receipt["policy"].startswith(f"{name}:budget=128"), receipt["policy"])
                        self.assertEqual(receipt["prefill"], prefill)
                        self.assertEqual(receipt["resident_tokens"], plain["resident_tokens"])
                        self.assertEqual(receipt["degraded"], [])
                        # Heads that share a budget end in tiles of their own: one more for each at most.
                        tile = plain["device_bytes"]["resident"] // (HEADS * -(-int(plain["resident_tokens"]) // SIZE))
                        self.assertLessEqual(receipt["device_bytes"]["resident"],
                                             plain["device_bytes"]["resident"] + HEADS * tile)

    def test_in_two_bits_a_fifth_is_held(self):
        for policy, prefill in (("full", "exact"), ("snapkv:budget=512", "exact"), ("snapkv:budget=512", "anchored")):
            with self.subTest(policy=policy, prefill=prefill):
                exact = self.ask(policy, prefill)
                coded = self.ask(f"{policy}{',' if ':' in policy else ':'}kv=kivi2,residual=64", prefill)
                self.assertTrue(coded["policy"].endswith("kv=kivi2,residual=64"), coded["policy"])
                self.assertEqual(coded["resident_tokens"], exact["resident_tokens"])
                self.assertLess(coded["device_bytes"]["resident"], 0.7 * exact["device_bytes"]["resident"])
                self.assertEqual(coded["spilled_bytes"], {"host": 0, "ssd": 0}, "blocks below are exact, and there already")

    def test_two_bits_and_recall_are_refused_before_any_work(self):
        self.expect_error(cli.FAILED, "ask", "--document", self.document, "--policy", "snapkv:budget=128,kv=kivi2", "--recall",
                          "slices", "Who?", contains=["recall slices", "policy snapkv and kv=kivi2", "take kv=bf16, or recall none"])

    def test_what_was_kept_is_found_by_the_next_question(self):
        for name in ("expected", "sirllm", "adakv", "kvzip"):
            first = self.ask(f"{name}:budget=128", "exact")
            again = self.ask(f"{name}:budget=128", "exact")
            self.assertEqual(first["resident_tokens"], again["resident_tokens"])
            self.assertEqual(first["device_bytes"]["resident"], again["device_bytes"]["resident"])

    def test_an_answer_that_evicts_keeps_its_budget(self):
        for policy in ("h2o:heavy=100,recent=28", "tova:budget=128", "roco:budget=128"):
            for question in ("hidden", "visible"):
                with self.subTest(policy=policy, question=question):
                    keeps = self.ask(policy, "exact", "--question", question)
                    evicts = self.ask(f"{policy},decode=evict", "exact", "--question", question)
                    self.assertIn("decode=evict", evicts["policy"])
                    self.assertEqual(evicts["resident_tokens"], keeps["resident_tokens"])
                    self.assertEqual(evicts["resident_tokens_end"], evicts["resident_tokens"])
                    self.assertGreaterEqual(keeps["resident_tokens_end"], keeps["resident_tokens"])
        self.expect_error(cli.USAGE, "ask", "--document", self.document, "--policy", "tova:decode=evict,merge=values", "Who?",
                          contains=["decode=evict", "merge=values", "one of them"])
        self.expect_error(cli.FAILED, "ask", "--document", self.document, "--policy", "tova:budget=128,decode=evict",
                          "--recall", "slices", "Who?", contains=["recall slices", "decode=evict", "recall none"])

    def test_any_policy_picks_in_a_pot(self):
        for name in ("tova", "lookm", "knorm", "keydiff", "expected", "sirllm", "pyramidkv", "adakv", "chunkkv", "criticalkv", "kvzip"):
            receipt = self.ask(f"infinipot:pot=400,keep=150,score={name}", "pot")
            self.assertIn(f"score={name}", receipt["policy"])
            self.assertLessEqual(receipt["resident_tokens"], 400)


if __name__ == "__main__":
    cli.main()
