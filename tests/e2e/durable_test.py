"""Documents outlive processes: what was computed is found again by the next one, whatever happened to the one before; what
is damaged is computed again; and nothing starts on a folder or a key that it should not touch."""

import glob
import os
import pathlib
import random
import signal
import time

import cli

KILLS = int(os.environ.get("PALIMPSEST_TEST_INGEST_KILLS", "25"))
QUESTION = "Who keeps the lamp?"


def story(seed: int, sentences: int = 320) -> str:
    """About 6 tokens of the tiny model a sentence."""
    rng = random.Random(seed)
    words = ["lamp", "keeper", "ship", "storm", "island", "letter", "bread", "winter", "harbour", "bell"]
    return " ".join(f"The {rng.choice(words)} of {rng.choice(words)} {rng.randrange(1000)}." for _ in range(sentences))


class DurableTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.tiny_model()

    def ask(self, document, *arguments, **more) -> dict:
        return self.expect_done("ask", "--document", document, "--max-tokens", "8", "--json", *arguments, QUESTION, **more).json

    def alone(self, document, *arguments) -> dict:
        """The answer of a process that finds nothing and leaves nothing."""
        return self.ask(document, *arguments, PALIMPSEST_SSD_ENABLED="false")

    def tables(self) -> list[str]:
        return sorted(glob.glob(str(self.data / "tier/0/**/*.sst"), recursive=True))

    def test_second_process_finds_what_the_first_computed(self):
        document = self.write("story.txt", story(1))
        expected = self.alone(document)
        self.expect_done("ingest", document)
        answer = self.ask(document)
        receipt = answer["receipt"]
        self.assertEqual(answer["answer"], expected["answer"])
        self.assertEqual(receipt["recomputed_tokens"], 0)
        self.assertGreater(receipt["cached_tokens"]["ssd"], 0.9 * receipt["prompt_tokens"] - 64)
        self.assertEqual(receipt["encryption"], "aes-256-gcm")
        self.assertEqual(receipt["degraded"], [])
        self.assertNotIn(b"lamp", b"".join(pathlib.Path(path).read_bytes() for path in self.tables()))

    def test_a_question_within_the_window_brings_what_was_kept_and_not_the_document(self):
        document = self.write("story.txt", story(2))
        policy = ("--policy", "snapkv:budget=128", "--recall", "slices:budget=64")
        self.expect_done("ingest", document)
        first, second = (self.ask(document, *policy) for _ in range(2))
        self.assertEqual(first["answer"], second["answer"])
        self.assertEqual(second["receipt"]["recomputed_tokens"], 0)
        self.assertGreater(first["receipt"]["device_bytes"]["peak"], 3 * second["receipt"]["device_bytes"]["peak"])
        self.assertGreater(second["receipt"]["recalled"]["ssd"]["slices"], 0)

    def test_killed_while_it_ingests_it_loses_nothing_that_was_acknowledged(self):
        rng = random.Random(6)
        documents = {number: self.write(f"story{number}.txt", story(100 + number)) for number in range(KILLS)}
        started = time.monotonic()
        self.expect_done("ingest", self.write("first.txt", story(99)))
        whole = time.monotonic() - started
        acknowledged, killed = [], 0
        for number, document in documents.items():
            process = self.start("ingest", document)
            time.sleep(rng.uniform(0, 1.1 * whole))
            process.send_signal(signal.SIGKILL)
            status = self.finish(process).status
            self.assertIn(status, (0, -signal.SIGKILL))
            killed += status != 0
            if status == 0:
                acknowledged.append(number)
            elif rng.random() < 0.5:  # it goes on where it was
                self.expect_done("ingest", document)
                acknowledged.append(number)
        reusable = wanted = 0
        for number in acknowledged:
            receipt = self.ask(documents[number])["receipt"]
            self.assertEqual(receipt["degraded"], [])
            wanted += receipt["recomputed_tokens"] + receipt["cached_tokens"]["ssd"] + receipt["cached_tokens"]["host"]
            reusable += receipt["cached_tokens"]["ssd"] + receipt["cached_tokens"]["host"]
        print(f"\n{killed} of {KILLS} killed, {len(acknowledged)} acknowledged, {reusable} of {wanted} tokens reusable")
        self.assertGreaterEqual(reusable, 0.99 * wanted)
        for number in rng.sample(range(KILLS), min(KILLS, 8)):  # none is wrong, acknowledged or not
            self.assertEqual(self.ask(documents[number])["answer"], self.alone(documents[number])["answer"])
        self.expect_done("storage", "verify")

    def test_damage_is_found_dropped_and_computed_again(self):
        document = self.write("story.txt", story(3))
        expected = self.alone(document)["answer"]
        self.expect_done("ingest", document)
        before = self.expect_done("storage", "verify", "--json").json["tiers"][0]
        self.assertEqual(before["damaged"], [])
        path = max(self.tables(), key=os.path.getsize)
        with open(path, "r+b") as table:
            for at in range(20000, os.path.getsize(path) - 20000, 60000):
                table.seek(at)
                byte = table.read(1)[0]
                table.seek(at)
                table.write(bytes([byte ^ 0x10]))
        self.assertEqual(self.ask(document)["answer"], expected)
        verified = self.run_command("storage", "verify")
        if verified.status != cli.DONE:
            self.assertIn("damaged", verified.err)
        self.assertEqual(self.ask(document)["answer"], expected)
        self.assertEqual(self.ask(document)["receipt"]["recomputed_tokens"], 0)

    def test_a_tier_that_is_gone_costs_time_alone(self):
        document = self.write("story.txt", story(4))
        expected = self.alone(document)["answer"]
        self.expect_done("ingest", document)
        for path in self.tables():
            os.unlink(path)
        self.assertEqual(self.ask(document)["answer"], expected)

    def test_blocks_of_another_format_are_not_found(self):
        document = self.write("story.txt", story(8))
        self.expect_done("ingest", document)
        sizes = {"bf16": self.expect_done("storage", "status", "--json").json["tiers"][0]["used_bytes"]}
        for name in ("int8", "int4"):
            before = sum(sizes.values())
            first, second = (self.ask(document, PALIMPSEST_SSD_FORMAT=name, PALIMPSEST_HOST_STORE_BYTES="0")["receipt"]
                             for _ in range(2))
            self.assertEqual(first["ssd_format"], name)
            self.assertEqual(first["cached_tokens"]["ssd"], 0)
            self.assertGreater(second["cached_tokens"]["ssd"], 0.9 * second["prompt_tokens"] - 64)
            self.assertEqual(second["degraded"], [])
            sizes[name] = self.expect_done("storage", "status", "--json").json["tiers"][0]["used_bytes"] - before
        self.assertLess(sizes["int8"], 0.9 * sizes["bf16"])
        self.assertLess(sizes["int4"], sizes["int8"])
        self.expect_done("storage", "verify")
        receipt = self.ask(document, PALIMPSEST_HOST_FORMAT="int8")["receipt"]
        self.assertEqual((receipt["host_format"], receipt["ssd_format"]), ("int8", "bf16"))
        self.assertEqual(receipt["cached_tokens"]["ssd"], 0)  # exact ones are other blocks
        receipt = self.ask(document)["receipt"]
        self.assertEqual((receipt["host_format"], receipt["ssd_format"]), ("bf16", "bf16"))

    def test_another_model_under_the_same_name_finds_nothing(self):
        document = self.write("story.txt", story(5))
        self.expect_done("ingest", document)
        model = self.tiny_model()
        content = bytearray(model.read_bytes())
        content[-1000] ^= 1  # of a weight
        model.write_bytes(content)
        receipt = self.ask(document)["receipt"]
        self.assertEqual(receipt["cached_tokens"]["ssd"] + receipt["cached_tokens"]["host"], 0)
        self.assertGreater(receipt["recomputed_tokens"], 0)

    def test_keys_and_folders_that_are_not_right_are_named_before_any_work(self):
        document = self.write("story.txt", story(6, 30))
        self.expect_done("ingest", document)
        key = self.data / "keys/tier.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        ask = ("ask", "--document", document, QUESTION)
        key.chmod(0o644)
        self.expect_error(cli.FAILED, *ask, contains=["tier.key", "0644"])
        key.chmod(0o600)
        content = key.read_bytes()
        key.write_bytes(bytes(len(content)))
        self.expect_error(cli.FAILED, *ask, contains=[str(key)])
        key.unlink()
        self.expect_error(cli.FAILED, *ask, contains=[str(key), "restore"])
        key.write_bytes(content)
        key.chmod(0o600)
        self.expect_done(*ask)
        version = self.data / "tier/0/format"
        version.write_text("palimpsest tier 2\n")
        self.expect_error(cli.FAILED, *ask, contains=["2", "1", "tier/0"])

    def test_commands_of_storage(self):
        nothing = self.expect_done("storage", "status", "--json").json
        self.assertEqual((nothing["tiers"], nothing["documents"]["count"]), ([], 0))
        self.expect_done("ingest", self.write("story.txt", story(7)))
        status = self.expect_done("storage", "status", "--json").json
        self.assertFalse(status["verified"])
        self.assertGreater(status["tiers"][0]["used_bytes"], 0)
        self.assertEqual((status["documents"]["count"], status["documents"]["text_bytes"]), (1, len(story(7).encode())))
        self.assertGreater(status["documents"]["tokens"], 20)
        for text in ("tier/0", "documents: 1, of"):
            self.assertIn(text, self.expect_done("storage", "status").out)
        self.expect_done("storage", "verify")


if __name__ == "__main__":
    cli.main()
