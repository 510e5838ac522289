"""What the quick-start model keeps under the policies of the goldens, as `palimpsest inspect` tells and draws it."""

import json

import cli
import inspect_test


class KeptTest(cli.CliTest):
    """The bounds of tests/golden/README.md: overlap 0.985 in the mean and 0.94 for each head, greedy tokens equal."""

    def check(self, golden: dict, kept: list, found: list):
        for expected, got in zip(kept, found, strict=True):
            overlaps = [len(set(a) & set(b)) / len(a) for layers in zip(expected, got, strict=True)
                        for a, b in zip(*layers, strict=True)]
            mean = sum(overlaps) / len(overlaps)
            print(f"{golden['kind']}: overlap of kept tokens {mean:.4f} in the mean, {min(overlaps):.4f} at worst")
            self.assertGreaterEqual(mean, 0.985)
            self.assertGreaterEqual(min(overlaps), 0.94)

    def run_golden(self, name: str, prompt: str, policy) -> tuple:
        golden = json.loads((cli.GOLDEN / f"{name}.json").read_text())
        found = self.expect_done("inspect", "--prompt-file", cli.GOLDEN / prompt, "--policy", policy(golden["spec"]),
                                 "--generate", len(golden["greedy"]), "--json", "--html", "out.html", "--model",
                                 self.real_model()).json
        self.assertEqual(found["ids"], golden["ids"])
        self.assertEqual(found["generated"], golden["greedy"])
        return golden, found, inspect_test.steps(inspect_test.page_data(self.folder / "out.html"))

    def test_snapkv_keeps_the_golden_tokens(self):
        golden, found, shown = self.run_golden("snapkv_g1", "g1.txt", lambda spec: "snapkv:budget=256,window=32,kernel=7")
        self.check(golden, [golden["kept"]], [found["kept"]])
        self.assertEqual(shown, [(0, found["kept"])])
        self.assertLess((self.folder / "out.html").stat().st_size, 100_000)

    def test_infinipot_keeps_the_golden_tokens(self):
        golden, found, shown = self.run_golden(
            "infinipot_g2", "g2.txt",
            lambda spec: f"infinipot:pot={spec['pot']},keep={spec['keep']},alpha={spec['alpha']},catalyst_ids="
            + "/".join(map(str, spec["catalyst"])))
        self.check(golden, golden["kept"], found["cycles"])
        self.assertEqual([kept for _, kept in shown], found["cycles"])


if __name__ == "__main__":
    cli.main()
