"""What deploy/ hands to operators, held to the program as it was built."""

import os
import pathlib
import re
import shutil
import subprocess
import unittest

import cli

DEPLOY = cli.SOURCE / "deploy"
# Every Debian image has them.
ALWAYS_THERE = {"libc6", "libgcc-s1"}


class DeployTest(cli.CliTest):
    def test_example_settings_are_accepted(self):
        run = self.expect_done("serve", "--config", DEPLOY / "serve.example.yaml", "--print-effective-config")
        for line in (DEPLOY / "serve.example.yaml").read_text().splitlines():
            setting = re.match(r"  (\w+): ", line)
            if setting:
                self.assertRegex(run.out, rf"(?m)^  {setting[1]}: .*serve\.example\.yaml line \d+$")

    def test_systemd_accepts_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("there is no systemd-analyze")
        # It checks that the program is there: name the one that was built.
        unit = (DEPLOY / "palimpsest.service").read_text()
        self.assertIn("ExecStart=/usr/local/bin/palimpsest serve", unit)
        path = self.write("palimpsest.service",
                          unit.replace("ExecStart=/usr/local/bin/palimpsest", "ExecStart=" + os.environ["PALIMPSEST_TEST_BINARY"]))
        run = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
        ours = [line for line in run.stderr.splitlines() if "palimpsest.service" in line]
        self.assertEqual(ours, [], run.stderr)

    def test_unit_waits_longer_than_the_drain(self):
        unit = (DEPLOY / "palimpsest.service").read_text()
        drain = re.search(r"(?m)^  drain_seconds: (\d+)", (DEPLOY / "serve.example.yaml").read_text())
        stop = re.search(r"(?m)^TimeoutStopSec=(\d+)", unit)
        self.assertGreaterEqual(int(stop[1]), int(drain[1]) + 10)

    def test_image_has_the_libraries_that_the_program_loads(self):
        if not shutil.which("dpkg") or not shutil.which("readelf"):
            self.skipTest("packages are named by dpkg, libraries by readelf")
        binary = os.environ["PALIMPSEST_TEST_BINARY"]
        dynamic = subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
        if cli.sanitized():
            self.skipTest("a build with sanitizers loads other libraries")
        loaded = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
        packages = set()
        for name, path in re.findall(r"(\S+) => (\S+)", loaded):
            if name not in needed:
                continue
            # The package may know the file under / or under /usr, which are one folder.
            real = str(pathlib.Path(path).resolve())
            for candidate in (real, real.removeprefix("/usr"), "/usr" + real):
                found = subprocess.run(["dpkg", "-S", candidate], capture_output=True, text=True)
                if found.returncode == 0:
                    packages.add(found.stdout.split(":")[0])
                    break
        if not packages - ALWAYS_THERE:
            self.skipTest("the libraries are not from Debian packages")
        image = (DEPLOY / "Containerfile").read_text().rpartition("FROM debian:12\n")[2]
        listed = set(re.findall(r"\blib[\w.+\-]+", image[image.index("apt-get install"):image.index("rm -rf")]))
        self.assertEqual(packages - ALWAYS_THERE, listed)


if __name__ == "__main__":
    cli.main()
