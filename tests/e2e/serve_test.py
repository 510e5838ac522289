"""`palimpsest serve` as its clients see it: answers, documents, refusals, its end. On a tiny model."""

import http.client
import http.server
import json
import os
import signal
import socket
import time
import threading

import cli
import serving

TEXT = "The secret number of the harbor is 7421. " * 12


class ServeTest(serving.ServeTest):
    def test_answers_equal_those_of_the_command(self):
        self.tiny_model()
        path = self.write("note.txt", TEXT)
        alone = self.expect_done("ask", "--document", path, "--max-tokens", "12", "--json", "What is it?").json
        server = self.serve()
        document = self.ingest(server, "note.txt", TEXT)
        self.assertEqual(document["id"], alone["documents"][0])
        reply = server.chat("What is it?", max_tokens=12, palimpsest={"documents": [document["id"]]})
        self.assertEqual(reply.status, 200, reply.body)
        answer = reply.json
        self.assertEqual(answer["choices"][0]["message"]["content"], alone["answer"])
        self.assertEqual(answer["choices"][0]["finish_reason"], alone["finish_reason"])
        self.assertEqual(answer["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"])
        self.assertGreaterEqual(answer["usage"]["prompt_tokens_details"]["cached_tokens"], document["tokens"])
        receipt = answer["palimpsest"]["receipt"]
        self.assertEqual(set(receipt), set(alone["receipt"]))
        self.assertEqual((receipt["policy"], receipt["prefill"]), ("full", "exact"))

    def test_commands_with_a_server_say_what_they_say_without(self):
        self.tiny_model()
        path = self.write("note.txt", TEXT)
        question = ["ask", "--document", path, "--max-tokens", "12", "--temperature", "0.8", "--seed", "5", "--json",
                    "What is it?"]
        alone = self.expect_done(*question).json
        server = self.serve()
        there = self.expect_done(*question, "--server", server.url).json
        for key in ("answer", "finish_reason", "documents"):
            self.assertEqual(there[key], alone[key])
        self.assertEqual(there["usage"]["completion_tokens"], alone["usage"]["completion_tokens"])
        self.assertEqual(set(there["receipt"]), set(alone["receipt"]))
        streamed = self.expect_done(*[word for word in question if word != "--json"], PALIMPSEST_SERVER=server.url)
        self.assertEqual(streamed.out.rstrip("\n"), alone["answer"].rstrip("\n"))

        other = self.write("other.txt", "Something else entirely. " * 20)
        ingested = self.expect_done("ingest", other, "--json", "--server", server.url).json["documents"][0]
        self.assertFalse(ingested["already_known"])
        self.assertGreater(ingested["blocks"], 0)
        self.assertGreater(ingested["tier_bytes"]["ssd"], 0)
        listed = self.expect_done("documents", "list", "--json", "--server", server.url).json["documents"]
        self.assertEqual({document["id"] for document in listed}, {ingested["id"], alone["documents"][0]})
        shown = self.expect_done("documents", "show", ingested["id"], "--json", "--server", server.url).json
        self.assertEqual(shown["text"], other.read_text())
        self.expect_done("documents", "delete", ingested["id"], "--server", server.url)
        self.expect_error(cli.FAILED, "documents", "show", ingested["id"], "--server", server.url,
                          contains=[ingested["id"]])

    def test_only_an_answer_of_no_asked_length_is_cut_to_the_room_that_is_left(self):
        self.tiny_model()
        path = self.write("long.txt", "x1" * (cli.TINY_WINDOW // 2 - 114))
        question = ["ask", "--document", path, "--json", "Who?"]
        alone = self.expect_done(*question).json
        room = cli.TINY_WINDOW - alone["usage"]["prompt_tokens"]
        self.assertLess(room, 256, "less than an answer of the command may have")
        server = self.serve()
        there = self.expect_done(*question, "--server", server.url).json
        self.assertEqual((there["answer"], there["usage"]["completion_tokens"]),
                         (alone["answer"], alone["usage"]["completion_tokens"]))
        own = {"documents": alone["documents"]}
        self.assertEqual(server.chat("Who?", max_tokens=room, palimpsest=own).status, 200)
        refused = server.chat("Who?", max_tokens=room + 1, palimpsest=own)
        self.assertEqual((refused.status, refused.error["code"]), (400, "context_length_exceeded"))
        self.assertIn(str(room + 1), refused.error["message"])

    def test_an_error_within_an_answer_is_told_without_a_status(self):
        class Fails(http.server.BaseHTTPRequestHandler):
            def send(self, kind: str, body: bytes):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.send("application/json", b'{"data": [{"id": "m"}]}')

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send("text/event-stream", b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
                          b'data: {"error": {"message": "no worker came back"}}\n\n')

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Fails) as there:
            threading.Thread(target=there.serve_forever, daemon=True).start()
            run = self.expect_error(cli.FAILED, "ask", "--json", "hi", "--server",
                                    f"http://127.0.0.1:{there.server_address[1]}", contains=["no worker came back"])
            there.shutdown()
        self.assertNotIn("HTTP", run.err)

    def test_a_server_that_is_not_there_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        for command in (["ask", "hi"], ["ingest", self.write("a.txt", "x")], ["documents", "list"]):
            self.expect_error(cli.FAILED, *command, "--server", f"http://127.0.0.1:{port}",
                              contains=[f"127.0.0.1:{port}", "palimpsest serve"])
        self.expect_error(cli.FAILED, "ask", "hi", "--server", "localhost:8080", contains=["http://"])

    def test_second_server_on_a_data_folder_names_the_first(self):
        server = self.serve()
        self.expect_serve_error("--port", "0", "--admin-port", "0", contains=[str(server.process.pid)])
        self.expect_error(cli.FAILED, "documents", "list", contains=[str(server.process.pid)])

    def test_port_in_use_says_which_setting(self):
        self.tiny_model()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.expect_serve_error("--port", port, "--admin-port", "0", contains=[str(port), "server.port"])

    def test_open_address_without_keys_is_refused(self):
        self.tiny_model()
        self.expect_serve_error("--host", "0.0.0.0", "--port", "0", "--admin-port", "0",
                                contains=["api_keys_file", "insecure"])
        self.expect_serve_error("--server-tls-certificate", "none.pem", "--server-tls-key", "none.key", "--port", "0",
                                "--admin-port", "0", contains=["none.pem"])

    def test_without_keys_pages_of_other_sites_are_refused(self):
        server = self.serve()
        for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example"}):
            for target, admin in (("/v1/models", False), ("/status", True)):
                reply = server.call("GET", target, admin=admin, **headers)
                self.assertEqual(reply.status, 403, f"{headers} {target} {reply.body}")
                self.assertIn("server.api_keys_file", reply.error["message"])
        for headers in ({"Origin": server.url}, {"Host": f"localhost:{server.port}"}, {"Sec_Fetch_Site": "same-origin"}):
            self.assertEqual(server.call("GET", "/v1/models", **headers).status, 200, headers)

    def test_a_model_may_have_a_slash_in_its_name(self):
        server = self.serve("--server-model-name", "org/tiny")
        for name in ("org/tiny", "org%2Ftiny"):
            self.assertEqual(server.call("GET", f"/v1/models/{name}").json["id"], "org/tiny")
        self.assertEqual(server.call("GET", "/v1/models/org").status, 404)
        version = self.expect_done("--version").out.split()[1]
        self.assertEqual(server.call("GET", "/version").json, {"version": version})

    def test_keys_open_and_close_the_door(self):
        made = self.expect_done("serve", "--make-key", "team-a", "--json").json
        file = self.write("keys.yaml", "keys:\n" + made["entry"])
        os.chmod(file, 0o600)
        server = self.serve("--server-api-keys-file", file)
        for target in ("/v1/models", "/v1/documents"):
            self.assertEqual(server.call("GET", target).status, 401)
            self.assertEqual(server.call("GET", target, Authorization="Bearer wrong").status, 401)
            self.assertEqual(server.call("GET", target, Authorization=f"Bearer {made['key']}").status, 200)
        self.assertEqual(server.call("GET", "/health").status, 200)
        self.assertEqual(server.call("POST", "/tokenize", {"text": "hi"}).status, 401)
        self.expect_done("ask", "--max-tokens", "2", "hi", "--server", server.url, PALIMPSEST_API_KEY=made["key"])
        self.assertNotIn(made["key"], server.log.read_text())
        other = self.expect_done("serve", "--make-key", "team-b", "--json").json
        file.write_text("keys:\n" + other["entry"])
        self.eventually(lambda: server.call("GET", "/v1/models", Authorization=f"Bearer {other['key']}").status == 200,
                        10, "the new keys")
        self.assertEqual(server.call("GET", "/v1/models", Authorization=f"Bearer {made['key']}").status, 401)

    def test_tenants_do_not_see_each_other(self):
        keys = [self.expect_done("serve", "--make-key", f"team-{name}", "--json").json for name in "ab"]
        file = self.write("keys.yaml", "keys:\n" + "".join(key["entry"] for key in keys))
        os.chmod(file, 0o600)
        server = self.serve("--server-api-keys-file", file)
        first, second = ({"Authorization": f"Bearer {key['key']}"} for key in keys)
        reply = server.call("POST", "/v1/documents?name=a.txt", TEXT.encode(), Content_Type="text/plain", **first)
        document_id = reply.json["id"]
        self.assertEqual(server.call("GET", f"/v1/documents/{document_id}", **first).status, 200)
        self.assertEqual(server.call("GET", f"/v1/documents/{document_id}", **second).status, 404)
        self.assertEqual(server.call("DELETE", f"/v1/documents/{document_id}", **second).status, 404)
        self.assertEqual(server.call("GET", "/v1/documents", **second).json["data"], [])
        body = serving.chat_body("What?", palimpsest={"documents": [document_id]})
        self.assertEqual(server.call("POST", "/v1/chat/completions", body, **second).status, 404)
        again = server.call("POST", "/v1/documents?name=b.txt", TEXT.encode(), Content_Type="text/plain", **second)
        self.assertNotEqual(again.json["id"], document_id)
        self.assertFalse(again.json["already_known"])

    def test_wrong_requests_say_what_is_wrong(self):
        server = self.serve()
        good = serving.chat_body("hi")
        long = "word " * 3000
        table = [  # body, status, what the error says, its param
            (b"{", 400, "JSON", None),
            (b"[" * 100000, 400, "json_depth", None),
            (b"\xff\xfe", 400, "", None),
            ([], 400, "object", None),
            (good | {"messages": []}, 400, "messages", "messages"),
            (good | {"messages": "hi"}, 400, "messages", "messages"),
            (good | {"messages": [{"role": "boss", "content": "x"}]}, 400, "boss", "messages[0].role"),
            (good | {"messages": [{"role": "user", "content": 3}]}, 400, "", "messages[0].content"),
            (good | {"max_tokens": -1}, 400, "-1", "max_tokens"),
            (good | {"max_tokens": 1.5}, 400, "", "max_tokens"),
            (good | {"temperature": 1e300}, 400, "", "temperature"),
            (good | {"temperature": "hot"}, 400, "", "temperature"),
            (good | {"n": 9}, 400, "8", "n"),
            (good | {"top_logprobs": 21, "logprobs": True}, 400, "20", "top_logprobs"),
            (good | {"stop": [""]}, 400, "", "stop[0]"),
            (good | {"stop": ["x"] * 17}, 400, "16", "stop"),
            (good | {"seed": 10**30}, 400, "", "seed"),
            (good | {"model": "gpt-none"}, 404, "gpt-none", "model"),
            (good | {"palimpsest": {"polcy": "full"}}, 400, "policy", "palimpsest.polcy"),
            (good | {"palimpsest": {"documents": ["doc-0123456789abcdef"]}}, 404, "doc-0123456789abcdef",
             "palimpsest.documents"),
            (good | {"palimpsest": {"policy": "snapkv:budget=3"}}, 400, "snapkv", "palimpsest.policy"),
            (good | {"tools": [{}]}, 400, "tools", "tools"),
            (serving.chat_body(long) | {"palimpsest": {"prefill": "exact"}}, 400, str(cli.TINY_WINDOW), None),
            (good | {"palimpsest": {"policy": "infinipot:catalyst=@/etc/hostname"}}, 400, "palimpsest.catalyst",
             "palimpsest.policy"),
        ]
        for body, status, says, param in table:
            reply = server.call("POST", "/v1/chat/completions", body, Content_Type="application/json")
            what = f"{str(body)[:80]}: {reply.status} {reply.body[:300]}"
            self.assertEqual(reply.status, status, what)
            self.assertIn(says, reply.error["message"], what)
            self.assertLessEqual({"message", "type", "code", "param"}, set(reply.error), what)
            if param is not None:
                self.assertEqual(reply.error["param"], param, what)
        self.assertEqual(server.call("GET", "/v1/chat/completions").status, 405)
        self.assertEqual(server.call("GET", "/nothing").status, 404)
        self.assertEqual(server.call("GET", "/metrics").status, 404, "only on the admin listener")
        self.assertEqual(server.call("POST", "/v1/chat/completions", b"x" * (9 << 20)).status, 413)
        self.assertEqual(server.chat("hi").status, 200, "all the same")
        self.assertNotIn("boss", server.log.read_text(), "no content in the log")

    def test_documents_over_http(self):
        server = self.serve()
        document = self.ingest(server, "a b.txt", TEXT)
        self.assertEqual((document["name"], document["bytes"]), ("a b.txt", len(TEXT)))
        self.assertEqual(document["progress"]["done_tokens"], document["progress"]["total_tokens"])
        self.assertEqual(server.call("GET", f"/v1/documents/{document['id']}/text").body.decode(), TEXT)
        self.assertEqual([one["id"] for one in server.call("GET", "/v1/documents").json["data"]], [document["id"]])
        again = server.call("POST", "/v1/documents?name=c.txt", TEXT.encode(), Content_Type="text/plain").json
        self.assertEqual((again["id"], again["already_known"]), (document["id"], True))
        for body, kind, status in ((b"", "text/plain", 400), (b"\xff\xfe", "text/plain", 400),
                                   (b"x", "multipart/form-data; boundary=b", 415), (b"x", "image/png", 415)):
            reply = server.call("POST", "/v1/documents?name=x", body, Content_Type=kind)
            self.assertEqual(reply.status, status, reply.body)
        self.assertEqual(server.call("DELETE", f"/v1/documents/{document['id']}").status, 200)
        self.assertEqual(server.call("GET", f"/v1/documents/{document['id']}").status, 404)
        self.assertEqual(list((self.data / "uploads").glob("*")) if (self.data / "uploads").exists() else [], [])

    def test_same_conversation_is_found_again(self):
        server = self.serve()
        long = "A long story about ships and harbors. " * 20
        first = server.chat(long).json["usage"]
        second = server.chat(long).json["usage"]
        self.assertLess(first["prompt_tokens_details"]["cached_tokens"], 64)
        self.assertGreater(second["prompt_tokens_details"]["cached_tokens"], first["prompt_tokens"] - 128)
        salted = server.chat(long, palimpsest={"cache_salt": "mine"}).json["usage"]
        self.assertEqual(salted["prompt_tokens_details"]["cached_tokens"], 0)

    def test_client_gone_ends_the_work(self):
        server = self.serve()
        for _ in range(5):
            stream = serving.Stream(server, "hi", max_tokens=1500)
            next(iter(stream))
            stream.close()
        self.expect_idle(server)
        generated = server.metrics()
        time.sleep(0.5)
        self.assertEqual(server.metrics()["palimpsest_generation_tokens_total"],
                         generated["palimpsest_generation_tokens_total"])

    def test_term_finishes_what_runs_and_leaves_nothing_behind(self):
        server = self.serve()
        stream = serving.Stream(server, "hi", max_tokens=300)
        pieces = iter(stream)
        next(pieces)
        workers = server.children()
        self.assertEqual(len(workers), 1)
        server.process.send_signal(signal.SIGTERM)
        refused = None
        while refused is None:  # until the stop has been seen
            try:
                status = server.chat("hi", max_tokens=1).status
                refused = status if status != 200 else None
            except (ConnectionError, http.client.HTTPException):
                refused = "closed"
        self.assertIn(refused, (503, "closed"))
        for _ in pieces:
            pass
        self.assertEqual(stream.error, None)
        self.assertIn(stream.reason, ("stop", "length"))
        self.assertEqual(server.process.wait(30), 0, server.log.read_text())
        for pid in workers:
            self.assertFalse(os.path.exists(f"/proc/{pid}"), "a worker is left")

    def test_term_tells_clients_whose_answer_it_cuts(self):
        server = self.serve("--server-drain-seconds", 0)
        stream = serving.Stream(server, "hi", max_tokens=1900, n=8, palimpsest={"ignore_end": True})
        pieces = iter(stream)
        next(pieces)
        server.process.send_signal(signal.SIGTERM)
        for _ in pieces:
            pass
        self.assertIsNotNone(stream.error, "it had ended before")
        self.assertIn("stopping", stream.error["message"])
        self.assertEqual(server.process.wait(30), 0, server.log.read_text())

    def test_coordinator_killed_gives_a_clear_end_and_comes_back(self):
        server = self.serve()
        document = self.ingest(server, "a.txt", TEXT)
        stream = serving.Stream(server, "hi", max_tokens=1900)
        pieces = iter(stream)
        next(pieces)
        workers = server.children()
        server.process.kill()
        with self.assertRaises((AssertionError, ConnectionError, http.client.HTTPException)):
            for _ in pieces:
                pass
            self.assertIsNone(stream.reason, "it had ended before")
        self.eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 10, "workers to end")
        started = time.monotonic()
        server = self.serve()
        print(f"\nready {time.monotonic() - started:.2f} s after kill -9")
        self.assertEqual(server.call("GET", f"/v1/documents/{document['id']}/text").body.decode(), TEXT)
        self.assertEqual(server.chat("?", palimpsest={"documents": [document["id"]]}).status, 200)

    def test_worker_killed_while_idle_comes_back(self):
        server = self.serve()
        before = server.chat("hi").json["choices"][0]["message"]
        (pid,) = server.children()
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(server.chat("hi").json["choices"][0]["message"], before)
        self.assertEqual(server.call("GET", "/ready", admin=True).status, 200)
        self.assertNotEqual(server.children(), [pid])

    def test_admin_says_how_it_goes(self):
        server = self.serve()
        server.chat("hi", max_tokens=4)
        metrics = server.metrics()
        self.assertGreaterEqual(metrics["palimpsest_generation_tokens_total"], 1)
        self.assertGreater(metrics["palimpsest_prompt_tokens_total"], 1)
        self.assertEqual(metrics['palimpsest_time_to_first_token_seconds_bucket{le="2560"}'], 1)
        status = server.status()
        self.assertEqual(len(status["workers"]), 1)
        self.assertEqual(server.call("GET", "/health", admin=True).status, 200)
        self.assertEqual(server.call("GET", "/v1/models", admin=True).status, 404)

    def test_two_workers_share_the_work(self):
        server = self.serve("--workers", "2")
        self.eventually(lambda: len(server.status()["workers"]) == 2, 30, "two workers")
        alone = server.chat("Tell me more", max_tokens=64).json["choices"][0]["message"]["content"]
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(
            server.chat("Tell me more", max_tokens=64).json["choices"][0]["message"]["content"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [alone] * 8)


if __name__ == "__main__":
    cli.main()
