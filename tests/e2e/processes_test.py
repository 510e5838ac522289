"""serve, coordinator and worker as processes: start, ready, die, stop. On a tiny model."""

import json
import os
import pathlib
import selectors
import signal
import socket
import time
import urllib.error
import urllib.request

import cli

START_SECONDS = 60  # a bound for machines under load; a tiny model takes well under one


def children(pid: int) -> list[int]:
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def get(url: str, body=None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class ProcessTest(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.runtime = self.folder / "runtime"
        self.runtime.mkdir(mode=0o700)

    def serve(self, *arguments, command="serve", **more: str):
        """Starts it; what it printed when it was ready is in self.ready."""
        process = self.start_serving(*arguments, command=command, **more)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                process.kill()
                self.fail("not ready: " + process.communicate()[1].decode())
        line = process.stdout.readline()
        if not line:
            self.fail("it ended: " + process.communicate()[1].decode())
        self.ready = json.loads(line)
        self.assertEqual(self.ready["pid"], process.pid)
        return process

    def start_serving(self, *arguments, command="serve", **more: str):
        self.tiny_model()
        return self.start(command, "--port", 0, "--admin-port", 0, "--json", *arguments,
                          XDG_RUNTIME_DIR=str(self.runtime), **more)

    def wait_for(self, condition, what: str):
        end = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > end:
                self.fail(f"after {START_SECONDS} s: not {what}")
            time.sleep(0.02)

    def ask(self) -> tuple[int, str]:
        return get(self.ready["url"] + "/v1/completions", {"prompt": "a b c", "max_tokens": 4, "temperature": 0})

    def stop(self, process):
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        run = self.finish(process, timeout=START_SECONDS)
        self.assertEqual(run.status, cli.DONE, str(run))
        self.assertEqual([pid for pid in workers if is_running(pid)], [])
        return run


class ServeTest(ProcessTest):
    def test_is_ready_answers_and_stops_with_nothing_left(self):
        process = self.serve()
        self.assertEqual(get(self.ready["url"] + "/health")[0], 200)
        self.assertEqual(get(self.ready["admin_url"] + "/ready")[0], 200)
        self.assertEqual(self.ask()[0], 200)
        self.assertEqual(len(children(process.pid)), 1)
        run = self.stop(process)
        self.assertEqual(list(self.runtime.iterdir()), [])
        self.assertIn(" ready api ", run.err)
        self.assertNotIn("a b c", run.err)  # no content in logs (I-18)

    def test_killed_worker_comes_back(self):
        process = self.serve()
        first, before = self.ask()[1], children(process.pid)
        os.kill(before[0], signal.SIGKILL)
        status, second = self.ask()  # waits for the next one
        self.assertEqual(status, 200, second)
        self.assertEqual(json.loads(second)["choices"], json.loads(first)["choices"])
        self.assertNotEqual(children(process.pid), before)
        self.stop(process)

    def test_several_workers_share_the_machine(self):
        process = self.serve("--workers", 2)
        self.wait_for(lambda: len(children(process.pid)) == 2, "two workers")
        self.assertEqual(self.ask()[0], 200)
        self.stop(process)

    def test_killed_serve_takes_its_workers_along(self):
        process = self.serve()
        workers = children(process.pid)
        process.kill()
        process.communicate()
        self.wait_for(lambda: not any(is_running(pid) for pid in workers), "without workers")
        again = self.serve()  # nothing stands in its way
        self.assertEqual(self.ask()[0], 200)
        self.stop(again)

    def test_service_manager_is_told(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self.folder / "notify"))
            manager.settimeout(START_SECONDS)
            process = self.serve(NOTIFY_SOCKET=str(self.folder / "notify"))
            self.assertEqual(manager.recv(64), b"READY=1")
            self.stop(process)
            self.assertEqual(manager.recv(64), b"STOPPING=1")

    def test_second_one_on_the_data_folder_is_told_who_has_it(self):
        process = self.serve()
        run = self.finish(self.start_serving())
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertIn(f"in use by process {process.pid} (palimpsest serve)", run.err)
        self.stop(process)

    def test_port_in_use_is_said(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = str(other.getsockname()[1])
            run = self.finish(self.start_serving("--port", port))
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertIn(port, run.err)
        self.assertEqual(list(self.runtime.iterdir()), [])

    def test_beyond_loopback_needs_keys(self):
        run = self.finish(self.start_serving("--host", "0.0.0.0"))
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertIn("server.api_keys_file", run.err)

    def test_new_key_is_printed_with_its_lines(self):
        run = self.expect_done("serve", "--make-key", "team-a")
        self.assertRegex(run.out, r"plm-[0-9a-f]{64}")
        self.assertIn("sha256: ", run.out)
        self.assertNotEqual(run.out, self.expect_done("serve", "--make-key", "team-a").out)


class ClusterTest(ProcessTest):
    def test_coordinator_and_worker_meet_over_a_socket(self):
        join = f"unix:{self.folder}/join"
        coordinator = self.start_serving("--cluster-coordinator", join, command="coordinator")
        worker = self.start("worker", "--cluster-coordinator", join, "--cluster-listen", f"unix:{self.folder}/worker")
        self.ready = json.loads(coordinator.stdout.readline())
        self.assertEqual(self.ask()[0], 200)
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(worker).status, cli.DONE)
        self.assertEqual(get(self.ready["admin_url"] + "/ready")[0], 503)
        self.stop(coordinator)

    def test_worker_of_another_cluster_is_refused_with_both_names(self):
        join = f"unix:{self.folder}/join"
        coordinator = self.start_serving("--cluster-coordinator", join, "--cluster-id", "ours", command="coordinator")
        worker = self.start("worker", "--cluster-coordinator", join, "--cluster-listen", f"unix:{self.folder}/worker",
                            "--cluster-id", "theirs")
        run = self.finish(worker)
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertIn("theirs", run.err.splitlines()[-1])
        self.assertIn("ours", run.err.splitlines()[-1])
        self.stop(coordinator)

    def test_worker_beyond_loopback_needs_certificates(self):
        self.tiny_model()
        run = self.finish(self.start("worker", "--cluster-listen", "0.0.0.0:0"))
        self.assertEqual(run.status, cli.FAILED, str(run))
        self.assertIn("cluster.tls_certificate", run.err)


if __name__ == "__main__":
    cli.main()
