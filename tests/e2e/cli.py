"""Runs the command in a folder of its own, as a person would. Standard library only.

ctest sets the environment: PALIMPSEST_TEST_BINARY the command, PALIMPSEST_TEST_TINY_MODEL_WRITER the program that
writes a tiny random model, PALIMPSEST_TEST_MODEL the quick-start model (tests that need it skip when it is unset).
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = SOURCE / "deploy/sample/lighthouse.md"
GOLDEN = SOURCE / "tests/golden/smollm2-135m"
TINY_WINDOW = 2048
PATIENCE = 280  # seconds for a command: of the slowest build, with AddressSanitizer, reading the sample takes 100
DONE, FAILED, USAGE = 0, 1, 2


class Run:
    """What a finished command left."""

    def __init__(self, status: int, out: str, err: str):
        self.status, self.out, self.err = status, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit status {self.status}\nstdout: {self.out}\nstderr: {self.err}"


class CliTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="palimpsest_e2e_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.data = self.folder / "data"

    def environment(self, **more: str) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("PALIMPSEST_")}
        return own | {"PALIMPSEST_DATA_DIR": str(self.data), "PALIMPSEST_THREADS_PIN": "false"} | more

    def start(self, *arguments, **more: str) -> subprocess.Popen:
        """`more` are environment variables."""
        process = subprocess.Popen([os.environ["PALIMPSEST_TEST_BINARY"], *map(str, arguments)], cwd=self.folder,
                                   env=self.environment(**more), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen):
        if process.poll() is None:
            process.kill()
            process.communicate()

    def finish(self, process: subprocess.Popen, stdin: bytes = b"", timeout: float = PATIENCE) -> Run:
        out, err = process.communicate(stdin, timeout=timeout)
        return Run(process.returncode, out.decode(), err.decode())

    def run_command(self, *arguments, stdin: bytes = b"", **more: str) -> Run:
        return self.finish(self.start(*arguments, **more), stdin)

    def expect_done(self, *arguments, **more) -> Run:
        run = self.run_command(*arguments, **more)
        self.assertEqual(run.status, DONE, str(run))
        return run

    def expect_error(self, status: int, *arguments, contains=(), **more) -> Run:
        """One line on stderr that says all of `contains`, nothing on stdout."""
        run = self.run_command(*arguments, **more)
        self.assertEqual(run.status, status, str(run))
        self.assertEqual(run.out, "", str(run))
        self.assertRegex(run.err, r"\Apalimpsest: [^\n]+\n\Z")
        for part in contains:
            self.assertIn(part, run.err)
        return run

    def write(self, name: str, content) -> pathlib.Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def tiny_model(self, context: int = TINY_WINDOW) -> pathlib.Path:
        """A model that answers nonsense, at once; the default one of this test's data folder."""
        path = self.data / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        if not path.exists():
            for folder in (self.data, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            subprocess.run([os.environ["PALIMPSEST_TEST_TINY_MODEL_WRITER"], path, str(context)], check=True)
        return path

    def real_model(self) -> pathlib.Path:
        path = os.environ.get("PALIMPSEST_TEST_MODEL")
        if not path:
            self.skipTest("PALIMPSEST_TEST_MODEL is not set: no model file to test with")
        return pathlib.Path(path)


def sanitized() -> bool:
    """Is the program built with a sanitizer? Clang's are in it, gcc's in a library."""
    program = pathlib.Path(os.environ["PALIMPSEST_TEST_BINARY"]).read_bytes()
    return b"__asan_init" in program or b"__tsan_init" in program


def interrupt(process: subprocess.Popen):
    process.send_signal(signal.SIGINT)


def main():
    """unittest's own, and each skip in the words that the summary of all tests looks for."""
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    for test, reason in program.result.skipped:
        print(f"{test.id()}: Skipped\n{reason}")
    sys.exit(0 if program.result.wasSuccessful() else 1)
