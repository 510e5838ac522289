"""`palimpsest bench` on a tiny model: the shape of its report. Its figures are printed, never judged."""

import cli


class BenchTest(cli.CliTest):
    def test_report_names_every_result_with_its_yardstick(self):
        model = self.tiny_model()
        run = self.expect_done("bench", "prefill,decode,gemm,attention", "--tokens", "64", "--depth", "128", "--rounds", "1",
                               "--model", model, "--json")
        machine, results = run.json["machine"], run.json["results"]
        self.assertIn("cpu-", machine["numerics"])
        self.assertGreaterEqual(machine["threads"], 1)
        self.assertEqual([result["name"].split()[0] for result in results],
                         ["prefill", "decode", "gemm", "gemm", "gemm", "gemm", "attention"])
        for result in results:
            for field in ("seconds_median", "tokens_per_second", "ideal_seconds", "efficiency"):
                self.assertGreater(result[field], 0, result)
            self.assertGreater(result["yardstick"]["value"], 0)
        self.assertEqual([(r["tokens"], r["depth"], r["yardstick"]["unit"]) for r in results[:2]],
                         [(64, 0, "FLOP/s"), (1, 128, "B/s")])

    def test_compression_is_reported_as_a_share_of_the_prefill(self):
        run = self.expect_done("bench", "compress", "--tokens", "200", "--rounds", "1", "--model", self.tiny_model(), "--json")
        results = run.json["results"]
        self.assertEqual([result["name"] for result in results],
                         ["compress score", "compress select", "compress gather", "compress"])
        self.assertEqual([result["tokens"] for result in results], [200] * 4)
        self.assertGreater(results[3]["of_prefill"], 0)
        self.expect_error(cli.FAILED, "bench", "compress", "--tokens", "100", "--model", self.tiny_model(),
                          contains=["100", "128"])

    def test_any_policy_is_measured_beside_a_prefill_without_one(self):
        run = self.expect_done("bench", "compress", "--tokens", "200", "--rounds", "1", "--model", self.tiny_model(), "--json",
                               "--policy", "expected:budget=64", "--policy", "adakv:budget=64,floor=0.5")
        self.assertEqual([(r["name"], r["tokens"], r["yardstick"]["unit"]) for r in run.json["results"]],
                         [("compress expected", 200, "tok/s"), ("compress adakv", 200, "tok/s")])
        for result in run.json["results"]:
            self.assertGreater(result["efficiency"], 0, result)
        for policy, *contains in (("full", "drops nothing"), ("infinipot", "drops nothing"), ("snapkv", "keeps all of 199"),
                                  ("knorm:budget=x", "budget='x'"), ("knorm:budget=200", "keeps all of 199")):
            self.expect_error(cli.FAILED, "bench", "compress", "--tokens", "200", "--model", self.tiny_model(), "--policy", policy,
                              contains=contains)

    def test_an_index_for_recall_is_made_and_read_at_any_depth(self):
        run = self.expect_done("bench", "recall", "--tokens", "1,5", "--depth", "3000", "--rounds", "1",
                               "--model", self.tiny_model(), "--json")
        results = run.json["results"]
        self.assertEqual([(r["name"], r["tokens"], r["depth"], r["yardstick"]["unit"]) for r in results],
                         [("index_build", 3000, 0, "B/s"), ("index_scan", 1, 3000, "B/s"),
                          ("index_scan", 5, 3000, "FLOP/s"), ("decode recall", 1, 3000, "tok/s")])
        self.assertGreater(results[0]["of_prefill"], 0)
        for result in results:
            self.assertGreater(result["efficiency"], 0, result)

    def test_a_tier_is_written_and_read_beside_its_disk_and_removed(self):
        run = self.expect_done("bench", "tiers", "--depth", "500", "--rounds", "1", "--model", self.tiny_model(), "--json")
        results = run.json["results"]
        self.assertEqual([(r["name"], r["tokens"], r["depth"], r["yardstick"]["unit"]) for r in results],
                         [("tier write", 256, 512, "B/s"), ("tier tiles", 256, 512, "B/s"),
                          ("tier groups", 512, 512, "B/s")])
        self.assertGreater(results[0]["of_prefill"], 0)
        for result in results:
            self.assertGreater(result["efficiency"], 0, result)
            self.assertGreater(result["bytes"], 0, result)
        self.assertEqual(list(self.data.glob("scratch/*")), [])

    def test_a_tier_larger_than_its_disk_is_refused_with_both_numbers(self):
        self.expect_error(cli.FAILED, "bench", "tiers", "--depth", "1000000M", "--model", self.tiny_model(),
                          contains=["bytes", "free", "--depth"])
        self.assertEqual(list(self.data.glob("scratch/*")), [])

    def test_prefill_beyond_the_window_goes_through_a_pot_and_in_spans(self):
        tokens = 2 * cli.TINY_WINDOW
        run = self.expect_done("bench", "prefill", "--tokens", str(tokens), "--rounds", "1", "--model", self.tiny_model(),
                               "--json")
        results = run.json["results"]
        self.assertEqual([result["name"] for result in results], ["prefill pot", "prefill anchored"])
        for result in results:
            self.assertEqual(result["tokens"], tokens)
            self.assertGreater(result["efficiency"], 0, result)

    def test_what_runs_in_one_window_is_refused_beyond_it_with_both_numbers(self):
        for args in (["compress", "--tokens", "1M"], ["decode", "--depth", "1M"]):
            with self.subTest(args=args):
                self.expect_error(cli.FAILED, "bench", *args, "--model", self.tiny_model(),
                                  contains=["1048576", str(cli.TINY_WINDOW)])

    def test_unknown_name_is_wrong_usage(self):
        self.expect_error(cli.USAGE, "bench", "speed", contains=["speed"])


if __name__ == "__main__":
    cli.main()
