"""The official `openai` package as a client, unchanged; and the OpenAPI description against the server it describes.
Both come from PyPI: the tests run under $PALIMPSEST_TEST_PYTHON and skip by name without it."""

import importlib.util
import os
import subprocess
import sys
import time

import cli
import serving

# Of two virtual environments the interpreter may be one file, so paths do not tell them apart: the variable does.
PYTHON = os.environ.pop("PALIMPSEST_TEST_PYTHON", None)
if importlib.util.find_spec("openai") is None and PYTHON:
    os.execv(PYTHON, [PYTHON, "-B", *sys.argv])
try:
    import openai
except ImportError:
    openai = None


class OpenaiTest(serving.ServeTest):
    def setUp(self):
        super().setUp()
        if openai is None:
            self.skipTest("the Python package openai is not installed (tests/requirements.txt)")

    def client(self, server, **more):
        return openai.OpenAI(base_url=server.url + "/v1", api_key=more.pop("api_key", "none"), max_retries=0, timeout=60)

    def ask(self, client, content="Tell me about ships.", **more):
        return client.chat.completions.create(model=self.model_name, max_tokens=24, temperature=0,
                                              messages=[{"role": "user", "content": content}], **more)

    def begin(self):
        server = self.serve()
        client = self.client(server)
        self.model_name = client.models.list().data[0].id
        return server, client

    def test_chat_and_streaming_say_the_same(self):
        _, client = self.begin()
        whole = self.ask(client)
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        self.assertIsNotNone(whole.usage.prompt_tokens_details.cached_tokens)
        self.assertIn("receipt", whole.model_extra["palimpsest"])
        text, usage, reason = "", None, None
        for chunk in self.ask(client, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
        self.assertEqual((text, reason), (whole.choices[0].message.content, whole.choices[0].finish_reason))
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_stop_ends_the_answer(self):
        _, client = self.begin()
        text = self.ask(client).choices[0].message.content
        stop = text[len(text) // 2:][:3]
        stopped = self.ask(client, stop=[stop]).choices[0]
        self.assertEqual(stopped.message.content, text[:text.index(stop)])
        self.assertEqual(stopped.finish_reason, "stop")

    def test_seed_makes_answers_repeatable(self):
        _, client = self.begin()
        asked = dict(model=self.model_name, max_tokens=24, temperature=1.0,
                     messages=[{"role": "user", "content": "Tell me."}])
        texts = [client.chat.completions.create(seed=seed, **asked).choices[0].message.content for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        several = client.chat.completions.create(seed=1, n=2, **asked).choices
        self.assertEqual([choice.message.content for choice in sorted(several, key=lambda c: c.index)], texts[1:])

    def test_logprobs(self):
        _, client = self.begin()
        answer = self.ask(client, logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), answer.usage.completion_tokens)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertAlmostEqual(token.logprob, token.top_logprobs[0].logprob, places=5)  # greedy
            self.assertLessEqual(token.logprob, 0)

    def test_plain_completions(self):
        _, client = self.begin()
        whole = client.completions.create(model=self.model_name, prompt="Once upon a time", max_tokens=12, temperature=0)
        text = "".join(chunk.choices[0].text for chunk in client.completions.create(
            model=self.model_name, prompt="Once upon a time", max_tokens=12, temperature=0, stream=True) if chunk.choices)
        self.assertEqual(text, whole.choices[0].text)
        self.assertEqual(whole.object, "text_completion")

    def test_errors_are_those_the_package_knows(self):
        server, client = self.begin()
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(client, content="word " * 3000, extra_body={"palimpsest": {"prefill": "exact"}})
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn(str(cli.TINY_WINDOW), str(caught.exception))
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(client, n=0)
        self.assertEqual(caught.exception.param, "n")
        made = self.expect_done("serve", "--make-key", "a", "--json").json
        keys = self.write("keys.yaml", "keys:\n" + made["entry"])
        server.stop()
        guarded = self.serve("--server-api-keys-file", keys)
        with self.assertRaises(openai.AuthenticationError):
            self.client(guarded).models.list()
        self.assertEqual(len(self.client(guarded, api_key=made["key"]).models.list().data), 1)

    def test_conversation_beyond_the_window_goes_through_a_pot(self):
        _, client = self.begin()
        answer = self.ask(client, content="word " * 3000)
        receipt = answer.model_extra["palimpsest"]["receipt"]
        self.assertEqual(receipt["prefill"], "pot")
        self.assertGreater(receipt["prompt_tokens"], cli.TINY_WINDOW)
        self.assertLessEqual(receipt["resident_tokens"], cli.TINY_WINDOW)

    def test_closing_a_stream_ends_its_work(self):
        server, client = self.begin()
        stream = client.chat.completions.create(model=self.model_name, max_tokens=1900, temperature=0, stream=True,
                                                messages=[{"role": "user", "content": "Tell me."}])
        next(iter(stream))
        stream.close()
        self.expect_idle(server)

    def test_description_fits_the_server(self):
        """schemathesis, bounded: no answer that the description does not allow, no 5xx."""
        server, _ = self.begin()
        schema = self.folder / "openapi.json"
        schema.write_bytes(server.call("GET", "/openapi.json").body)
        run = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", str(schema), "--url", server.url, "--max-examples", "15",
             "--phases", "examples,fuzzing", "--seed", "1", "--request-timeout", "20", "--no-color", "--checks",
             "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"],
            cwd=self.folder, capture_output=True, text=True, timeout=280)
        self.assertEqual(run.returncode, 0, run.stdout[-6000:] + run.stderr[-2000:])
        print("\n" + "\n".join(run.stdout.splitlines()[-12:]))
        self.expect_idle(server)


if __name__ == "__main__":
    cli.main()
