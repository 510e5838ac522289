"""The README's curl examples, run as written against a server on a free port."""

import os
import re
import shutil
import subprocess

import cli
import serving

BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


class ReadmeTest(serving.ServeTest):
    def test_curl_examples_run_as_written(self):
        if shutil.which("curl") is None:
            self.skipTest("curl is not installed")
        server = self.serve(model=self.real_model())
        pages = [cli.SOURCE / "README.md", cli.SOURCE / "docs" / "serve.md"]
        examples = [block for page in pages for block in BLOCK.findall(page.read_text()) if "curl" in block]
        self.assertGreaterEqual(len(examples), 2, "the README shows how to call the server")
        # One shell for all: later examples use what earlier ones have set.
        script = "set -euo pipefail\n" + "\necho '-- next --'\n".join(examples)
        script = script.replace("http://127.0.0.1:8080", server.url).replace("http://127.0.0.1:9090", server.admin_url)
        script = re.sub(r"\bpalimpsest serve\b[^\n]*\n", "", script)
        environment = self.environment() | {"PATH": os.path.dirname(os.environ["PALIMPSEST_TEST_BINARY"]) + ":" + os.environ["PATH"]}
        run = subprocess.run(["bash", "-c", script], cwd=cli.SOURCE, env=environment, capture_output=True, text=True,
                             timeout=200)
        self.assertEqual(run.returncode, 0, f"{script}\n{run.stdout}\n{run.stderr}")
        self.assertNotIn('"error": {', run.stdout.replace('":{', '": {'))
        self.assertIn('"receipt"', run.stdout)


if __name__ == "__main__":
    cli.main()
