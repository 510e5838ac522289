"""Many clients at once: equal answers, slow and vanishing ones, overload, a long ingestion beside short questions.

Figures are printed, not judged, except where a person would call it broken. On the real model."""

import os
import random
import socket
import threading
import time

import cli
import serving

OVERLOAD_SECONDS = float(os.environ.get("PALIMPSEST_TEST_OVERLOAD_SECONDS", "60"))
QUESTIONS = [f"Name {count} {things}." for count in ("two", "three") for things in
             ("rivers", "colors", "animals", "cities", "tools", "fruits", "planets", "trees")]


def run_all(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)


class LoadTest(serving.ServeTest):
    def test_32_connections_with_slow_and_vanishing_ones_get_the_answers_of_one(self):
        server = self.serve(model=self.real_model())
        alone = {question: server.chat(question, max_tokens=24).json["choices"][0]["message"]["content"]
                 for question in QUESTIONS}
        self.expect_idle(server)
        descriptors = server.descriptors()
        rng = random.Random(1)
        wrong, finished = [], []

        def finishes(question):
            stream = serving.Stream(server, question, max_tokens=24).read()
            finished.append(question)
            if stream.text != alone[question]:
                wrong.append((question, stream.text, stream.error))

        def reads_slowly(question):
            stream = serving.Stream(server, question, max_tokens=24)
            for _ in stream:
                time.sleep(0.15)
            stream.close()
            finished.append(question)
            if stream.text != alone[question]:
                wrong.append((question, stream.text, stream.error))

        def leaves(question, after):
            stream = serving.Stream(server, question, max_tokens=24)
            for number, _ in enumerate(stream):
                if number == after:
                    break
            stream.close()

        targets = [lambda q=QUESTIONS[i % 16]: finishes(q) for i in range(20)]
        targets += [lambda q=QUESTIONS[i]: reads_slowly(q) for i in range(4)]
        targets += [lambda q=QUESTIONS[i], n=rng.randrange(12): leaves(q, n) for i in range(8)]
        rng.shuffle(targets)
        run_all(targets)
        self.assertEqual(wrong, [])
        self.assertEqual(len(finished), 24)
        self.expect_idle(server)
        self.eventually(lambda: server.descriptors() <= descriptors, 10, f"descriptors back at {descriptors}")

    def test_client_that_reads_nothing_does_not_hold_up_others(self):
        server = self.serve("--limits-unsent-seconds", "2", "--limits-unsent-bytes", "4KiB", model=self.real_model())
        body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":400,"logprobs":true,"top_logprobs":20}'
        stalled = socket.socket()
        self.addCleanup(stalled.close)
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((server.host, server.port))
        stalled.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.assertEqual(server.chat("hi", max_tokens=8).status, 200)
        self.expect_idle(server)  # cut after 2 s without progress, or ended

    def test_overload_is_refused_at_once_and_passes(self):
        server = self.serve("--limits-running", "4", "--limits-waiting", "4", model=self.real_model())
        started = time.monotonic()
        for _ in range(4):
            server.chat("Name three rivers.", max_tokens=16)
        alone = (time.monotonic() - started) / 4
        memory_before = server.rss_mib()
        rate = 4 * 2 / alone  # two at once is about what two cores give
        refused, first, failed = [], [], []
        memory = [memory_before]
        end = time.monotonic() + OVERLOAD_SECONDS

        def one():
            begun = time.monotonic()
            try:
                stream = serving.Stream(server, "Name three rivers.", max_tokens=16)
            except OSError as error:
                failed.append(error)
                return
            if stream.status == 200:
                stream.read()
                (first if stream.error is None else failed).append(stream.first_seconds or stream.error)
            else:
                refused.append((time.monotonic() - begun, stream.status, stream.response.getheader("Retry-After")))
            stream.close()

        threads = []
        while time.monotonic() < end:
            threads.append(threading.Thread(target=one))
            threads[-1].start()
            if len(threads) % 20 == 0:
                memory.append(server.rss_mib())
                threads = [thread for thread in threads if thread.is_alive()]
            time.sleep(1 / rate)
        for thread in threads:
            thread.join(100)
        time.sleep(5)
        started = time.monotonic()
        self.assertEqual(server.chat("Name three rivers.", max_tokens=16).status, 200)
        after = time.monotonic() - started
        waits = sorted(seconds for seconds, _, _ in refused)
        first.sort()
        print(f"\noverload {rate * alone / 2:.1f}x for {OVERLOAD_SECONDS:.0f} s: {len(first)} answered (first token p50 "
              f"{first[len(first) // 2]:.2f} s, p99 {first[int(len(first) * 0.99)]:.2f} s), {len(refused)} refused (p50 "
              f"{waits[len(waits) // 2] * 1000:.0f} ms, p99 {waits[int(len(waits) * 0.99)] * 1000:.0f} ms); memory "
              f"{memory_before:.0f} to {max(memory):.0f} MiB; 5 s after: {after / alone:.2f} x the unloaded time")
        self.assertEqual(failed, [])
        self.assertGreater(len(refused), 0)
        for _, status, retry_after in refused:
            self.assertIn(status, (429, 503))
            self.assertGreaterEqual(int(retry_after), 1)
        self.assertLess(waits[len(waits) // 2], 0.5)
        self.assertLess(max(memory), memory_before + 400)
        self.expect_idle(server)

    def test_short_question_beside_a_long_ingestion(self):
        server = self.serve(model=self.real_model())
        prose = " ".join(f"In the year {1700 + i} the ship number {i * 37 % 1000} came from the port of {word} with grain."
                         for i, word in zip(range(290), ["Tarn", "Velo", "Ostrin", "Marlow", "Quay"] * 60))
        question = "Give three short reasons why sailors like clear nights, cold tea and warm coats. " * 2

        def first_token(extra):
            stream = serving.Stream(server, f"{extra} {question}", max_tokens=4)
            stream.read()
            return stream.first_seconds

        first_token("warm")
        unloaded = sorted(first_token(f"{n}a") for n in range(5))[2]
        reply = server.call("POST", "/v1/documents?name=long.txt", prose.encode(), Content_Type="text/plain")
        document_id = reply.json["id"]
        loaded, phase = [], "reading"
        while True:
            seconds = first_token(f"{len(loaded)}b")
            document = server.call("GET", f"/v1/documents/{document_id}").json
            if document["status"] == "ready":
                break
            self.assertIn(document["status"], ("waiting", "reading"), document)
            loaded.append(seconds)
        self.assertGreater(len(loaded), 2, "the ingestion was over too soon to measure")
        loaded.sort()
        print(f"\n{document['tokens']} tokens ingested in {document['seconds']:.1f} s beside {len(loaded)} short questions: "
              f"first token {unloaded * 1000:.0f} ms alone, median {loaded[len(loaded) // 2] * 1000:.0f} ms "
              f"({loaded[len(loaded) // 2] / unloaded:.2f}x), worst {loaded[-1] * 1000:.0f} ms ({loaded[-1] / unloaded:.2f}x)")
        self.assertLess(loaded[len(loaded) // 2] / unloaded, 6, "the share cap does not work")


if __name__ == "__main__":
    cli.main()
