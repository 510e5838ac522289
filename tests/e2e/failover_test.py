"""kill -9 of the worker, again and again, in prefill and in decode: no stream loses, doubles or changes a token (I-9, F13).
On the real model, whose answers take long enough to be hit."""

import itertools
import os
import random
import signal
import threading
import time

import cli
import serving

KILLS = int(os.environ.get("PALIMPSEST_TEST_KILLS", "20"))
LONG = "The keeper wrote down each ship that passed, its flag and the hour. " * 60  # about 900 tokens
ASKS = [
    dict(content="Count from one to thirty in words.", max_tokens=90, temperature=0),
    dict(content="Write a short tale of a lighthouse.", max_tokens=90, temperature=0.9, seed=7, top_p=0.95),
    dict(content=LONG + "What did the keeper write down?", max_tokens=40, temperature=0),
    dict(content="List fruits, separated by commas.", max_tokens=80, temperature=1.2, seed=11, repetition_penalty=1.1,
         stop=["Zebra"]),
    # A token goes for each that is new: who takes over must let go of the same ones.
    dict(content=LONG + "Write a short tale of this lighthouse.", max_tokens=80, temperature=0,
         palimpsest={"policy": "h2o:heavy=100,recent=28,decode=evict"}),
]


class FailoverTest(serving.ServeTest):
    def test_no_stream_differs_whenever_the_worker_is_killed(self):
        server = self.serve(model=self.real_model())
        expected = [serving.Stream(server, **dict(ask)).read() for ask in ASKS]
        for answer in expected:
            self.assertIn(answer.reason, ("stop", "length"))
        rng = random.Random(4)
        gaps, differ, phases = [], 0, {"prefill": 0, "decode": 0}
        for kill in range(KILLS):
            ask, right = ASKS[kill % len(ASKS)], expected[kill % len(ASKS)]
            (worker,) = self.eventually(lambda: server.children() if len(server.children()) == 1 else None, 20, "a worker")
            self.eventually(lambda: server.status()["workers"], 20, "a worker that joined")
            content = ask["content"]
            if kill % 2 == 0:  # in prefill: nothing of this prompt is cached, and the kill comes soon after it was sent
                threading.Timer(rng.uniform(0.01, 0.25), os.kill, (worker, signal.SIGKILL)).start()
                pieces_before_kill = None
            else:
                pieces_before_kill = rng.randrange(1, max(2, right.pieces))
            stream = serving.Stream(server, timeout=60, **dict(ask, content=content))
            last, longest = time.monotonic(), 0.0
            for number, _ in enumerate(stream, 1):
                longest = max(longest, time.monotonic() - last)
                last = time.monotonic()
                if number == pieces_before_kill:
                    os.kill(worker, signal.SIGKILL)
            phases["prefill" if pieces_before_kill is None else "decode"] += 1
            same = (stream.text, stream.reason, stream.error) == (right.text, right.reason, None)
            if same:
                self.assertEqual(stream.usage["completion_tokens"], right.usage["completion_tokens"])
                self.assertEqual(stream.usage["prompt_tokens"], right.usage["prompt_tokens"])
            else:
                print(f"\nkill {kill}: {stream.reason} {stream.error}\n{stream.text!r}\nexpected\n{right.text!r}")
            differ += not same
            gaps.append(longest)
            stream.close()
        print(f"\n{KILLS} kills ({phases['prefill']} soon after the start, {phases['decode']} in the stream): {differ} "
              f"streams differ; longest gap {max(gaps):.2f} s, median {sorted(gaps)[len(gaps) // 2]:.2f} s")
        self.assertEqual(differ, 0)
        self.assertGreater(sum(value for name, value in server.metrics().items()
                               if name.startswith("palimpsest_failovers_total")), 0)
        self.expect_idle(server)

    def test_streams_side_by_side_survive_together(self):
        server = self.serve(model=self.real_model())
        expected = [serving.Stream(server, **dict(ask)).read() for ask in ASKS]
        streams = [None] * 8

        def run(place):
            streams[place] = serving.Stream(server, timeout=60, **dict(ASKS[place % len(ASKS)])).read()

        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(streams))]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(1.5)
            for worker in server.children():
                os.kill(worker, signal.SIGKILL)
        for thread in threads:
            thread.join(100)
        for stream, right in zip(streams, itertools.cycle(expected)):
            self.assertEqual((stream.text, stream.reason, stream.error), (right.text, right.reason, None))
        self.expect_idle(server)


if __name__ == "__main__":
    cli.main()
