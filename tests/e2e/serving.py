"""A running `palimpsest serve` for tests, and plain ways to talk to it. Standard library only."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse

import cli

READY_SECONDS = 60


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        return self.json["error"]


class Server:
    """A `serve` process that is ready."""

    def __init__(self, process: subprocess.Popen, log: pathlib.Path, arguments: list[str]):
        self.process, self.log, self.arguments = process, log, arguments
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"serve ended with {process.wait(10)} before it was ready:\n{log.read_text()}")
        said = json.loads(line)
        self.url, self.admin_url = said["url"], said["admin_url"]
        self.host, self.port = self.split(self.url)
        self.admin_host, self.admin_port = self.split(self.admin_url)

    @staticmethod
    def split(url: str) -> tuple[str, int]:
        parts = urllib.parse.urlsplit(url)
        return parts.hostname, parts.port

    def connect(self, timeout: float = 100) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def call(self, method: str, target: str, body=None, timeout: float = 100, admin: bool = False, **headers) -> Reply:
        host, port = (self.admin_host, self.admin_port) if admin else (self.host, self.port)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if isinstance(body, (dict, list)):
                body = json.dumps(body).encode()
                sent.setdefault("Content-Type", "application/json")
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def chat(self, content: str, **more) -> Reply:
        return self.call("POST", "/v1/chat/completions", chat_body(content, **more))

    def status(self) -> dict:
        return self.call("GET", "/status", admin=True).json

    def metrics(self) -> dict[str, float]:
        """By name with labels, as written."""
        found = {}
        for line in self.call("GET", "/metrics", admin=True).body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def children(self) -> list[int]:
        """Process ids of the workers."""
        with contextlib.suppress(FileNotFoundError):
            return [int(pid) for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
                    for pid in (task / "children").read_text().split()]
        return []

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_mib(self) -> float:
        """Of the server and its workers."""
        total = 0
        for pid in [self.process.pid, *self.children()]:
            with contextlib.suppress(FileNotFoundError):
                pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE")
        return total / 2**20

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


def chat_body(content: str, **more) -> dict:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 16, "temperature": 0} | more


def events_of(response) -> "Iterator[dict]":
    """The JSON of each event of a stream, as they come, until [DONE]."""
    for line in response:
        line = line.decode().rstrip("\n")
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            return
        yield json.loads(line[len("data: "):])
    raise AssertionError("the stream ended without [DONE]")


class Stream:
    """One streamed chat answer, read event by event."""

    def __init__(self, server: Server, content: str, timeout: float = 100, **more):
        self.connection = server.connect(timeout)
        body = chat_body(content, stream=True, **more)
        body.setdefault("stream_options", {"include_usage": True})
        self.started = time.monotonic()
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.first_seconds = None
        self.text, self.reason, self.usage, self.receipt, self.error = "", None, None, None, None
        self.pieces = 0

    def __iter__(self):
        """Texts as they come."""
        assert self.status == 200, (self.status, self.response.read())
        for event in events_of(self.response):
            if "error" in event:
                self.error = event["error"]
                return
            if event.get("usage"):
                self.usage = event["usage"]
            if event.get("palimpsest"):
                self.receipt = event["palimpsest"]["receipt"]
            for choice in event.get("choices", []):
                self.reason = choice.get("finish_reason") or self.reason
                text = choice.get("delta", {}).get("content") or ""
                if text:
                    if self.first_seconds is None:
                        self.first_seconds = time.monotonic() - self.started
                    self.pieces += 1
                    self.text += text
                    yield text

    def read(self) -> "Stream":
        for _ in self:
            pass
        self.close()
        return self

    def close(self):
        self.response.close()
        self.connection.close()


class ServeTest(cli.CliTest):
    def serve(self, *arguments, model=None, ready: bool = True, **more: str) -> Server:
        """Starts and waits until it is ready."""
        model = model or self.tiny_model()
        log = self.folder / f"serve-{time.monotonic_ns()}.log"
        whole = [os.environ["PALIMPSEST_TEST_BINARY"], "serve", "--json", "--port", "0", "--admin-port", "0",
                 "--model", str(model), *map(str, arguments)]
        with open(log, "wb") as stderr:
            process = subprocess.Popen(whole, cwd=self.folder, env=self.environment(**more), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=stderr)
        self.addCleanup(self.end, process)
        return Server(process, log, whole)

    def expect_serve_error(self, *arguments, contains=()):
        """The last line on stderr says all of `contains`; log lines may stand before it."""
        run = self.run_command("serve", *arguments)
        self.assertEqual(run.status, cli.FAILED, str(run))
        last = run.err.splitlines()[-1]
        self.assertTrue(last.startswith("palimpsest: "), str(run))
        for part in contains:
            self.assertIn(part, last)

    @staticmethod
    def end(process: subprocess.Popen):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()

    def eventually(self, holds, seconds: float, what: str):
        """Until `holds()` is true."""
        end = time.monotonic() + seconds
        while not (value := holds()):
            self.assertLess(time.monotonic(), end, f"{what}: not within {seconds} s")
            time.sleep(0.05)
        return value

    def ingest(self, server: Server, name: str, text: str, seconds: float = 100) -> dict:
        reply = server.call("POST", f"/v1/documents?name={urllib.parse.quote(name)}", text.encode(),
                            Content_Type="text/plain")
        self.assertIn(reply.status, (200, 201, 202), reply.body)
        return self.wait_document(server, reply.json["id"], seconds)

    def wait_document(self, server: Server, document_id: str, seconds: float = 100) -> dict:
        def done():
            document = server.call("GET", f"/v1/documents/{document_id}").json
            return document if document["status"] in ("ready", "failed") else None
        document = self.eventually(done, seconds, f"ingestion of {document_id}")
        self.assertEqual(document["status"], "ready", document)
        return document

    def expect_idle(self, server: Server):
        """Nothing runs and no session holds device memory (I-12)."""
        def idle():
            status = server.status()
            requests = status["requests"]
            return status if not requests["running"] and not requests["waiting"] and all(
                worker["arena_pinned_bytes"] == 0 and worker["running"] == 0 and worker["waiting"] == 0
                for worker in status["workers"]) else None
        self.eventually(idle, 20, "an idle server")
