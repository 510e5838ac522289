#!/usr/bin/env python3
"""Throughput of `palimpsest serve` beside another OpenAI-compatible server on the same model, taken in turns in one run.

usage: compare_servers.py MODEL.gguf --palimpsest PATH --llama-server PATH [--clients 1,8] [--prompt-tokens 2048]
                          [--answer-tokens 128] [--rounds 3]

Each client asks one question after the other, each with a prompt of its own (nothing can be reused), and waits for the
whole answer; end tokens do not end it. Rounds alternate between the servers. Printed: prompt and answer tokens a second
over all clients, median of the rounds, and the ratio. Standard library only.
"""

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

WORDS = ("harbor lamp keeper wind grain ship stone tide winter letter road market bell copper field window river glass "
         "candle orchard winter morning shadow garden bridge silver paper anchor").split()
QUESTIONS_EACH = 2  # of each client in a round


def prose(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


class Server:
    def __init__(self, name: str, command: list[str], port: int, extra: dict, environment: dict):
        self.name, self.port, self.extra = name, port, extra
        self.process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as reply:
                    if reply.status == 200 and self.ask("hi", 1):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start: {' '.join(command)}")
            time.sleep(0.2)

    def ask(self, prompt: str, answer_tokens: int) -> dict | None:
        body = {"prompt": prompt, "max_tokens": answer_tokens, "temperature": 0} | self.extra
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        said = json.loads(reply.read())
        connection.close()
        return said["usage"] if reply.status == 200 else None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def one_round(server: Server, clients: int, words: int, answer_tokens: int, seed: int) -> tuple[float, int, int]:
    """Seconds, prompt tokens, answer tokens."""
    counts, lock = [0, 0], threading.Lock()

    def client(number: int):
        for question in range(QUESTIONS_EACH):
            usage = server.ask(prose(seed * 1000 + number * 10 + question, words), answer_tokens)
            if usage is None:
                raise SystemExit(f"{server.name} refused a request")
            with lock:
                counts[0] += usage["prompt_tokens"]
                counts[1] += usage["completion_tokens"]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started, counts[0], counts[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--palimpsest", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--prompt-tokens", type=int, default=2048)
    parser.add_argument("--answer-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clients = [int(one) for one in options.clients.split(",")]
    threads = str(os.cpu_count())
    slots = max(clients)
    room = (options.prompt_tokens + options.answer_tokens + 256) * slots
    with tempfile.TemporaryDirectory() as folder:
        servers = [
            Server("palimpsest", [options.palimpsest, "serve", "--model", options.model, "--port", "18080", "--admin-port",
                                  "18081", "--data-dir", folder, "--prefill-step-ms", "0"], 18080,
                   {"palimpsest": {"ignore_end": True}}, {}),
            Server("llama-server", [options.llama_server, "-m", options.model, "--port", "18082", "-c", str(room), "-np",
                                    str(slots), "-t", threads, "-tb", threads, "--no-warmup"], 18082,
                   {"ignore_eos": True, "cache_prompt": False}, {}),
        ]
        words = 64
        tokens = servers[0].ask(prose(0, words), 1)["prompt_tokens"]
        words = round(options.prompt_tokens * words / tokens)
        for count in clients:
            rates = {server.name: [] for server in servers}
            for number in range(options.rounds):
                for server in servers:
                    seconds, prompt, answer = one_round(server, count, words, options.answer_tokens, number * 100 + count)
                    rates[server.name].append((prompt + answer) / seconds)
                    print(f"  {count} clients, {server.name}: {prompt} + {answer} tokens in {seconds:.1f} s", flush=True)
            ours, theirs = (statistics.median(rates[server.name]) for server in servers)
            print(f"{count} clients: palimpsest {ours:.0f} tokens/s, llama-server {theirs:.0f} tokens/s, ratio {ours / theirs:.2f}",
                  flush=True)
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
