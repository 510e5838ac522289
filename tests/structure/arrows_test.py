"""Holds the module arrows and the other rules of rules.py over the repository, and the rules over bad examples.

Run by ctest; by hand: python3 tests/structure/arrows_test.py
"""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import rules  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def tree_of(files: dict[str, str]) -> rules.Tree:
    with tempfile.TemporaryDirectory() as top:
        for path, text in files.items():
            target = pathlib.Path(top, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return rules.Tree(pathlib.Path(top))


class TheRulesBite(unittest.TestCase):
    """Every rule finds what it is for, and leaves its neighbour alone."""

    def finds(self, check, bad: dict[str, str], good: dict[str, str]):
        found = list(check(tree_of(bad)))
        self.assertEqual(len(found), len(bad), f"expected one violation a file, got {[str(v) for v in found]}")
        self.assertEqual({v.path for v in found}, set(bad) if check is not rules.check_readmes else
                         {p.split("/")[0] for p in bad})
        self.assertEqual([str(v) for v in check(tree_of(good))], [])

    def test_every_upward_and_sideways_include_is_found(self):
        order = list(rules.MAY_INCLUDE)
        for low, module in enumerate(order):
            for target in order:
                text = f'#include "{target}/x.h"\n'
                allowed = target == module or target in rules.MAY_INCLUDE[module]
                found = list(rules.check_arrows(tree_of({f"{module}/a.cc": text})))
                self.assertEqual(len(found), 0 if allowed else 1, f"{module} -> {target}")
                if order.index(target) > low:
                    self.assertFalse(allowed, f"the table lets {module} include {target}, which stands above it")
        self.assertNotIn("worker", rules.MAY_INCLUDE["coordinator"])
        self.assertNotIn("coordinator", rules.MAY_INCLUDE["worker"])

    def test_other_spellings_of_an_arrow_are_found(self):
        self.finds(rules.check_arrows,
                   bad={"text/angle.h": "#include <worker/session.h>\n",
                        "text/spaced.cc": '  #  include   "worker/session.h"\n',
                        "text/dots.cc": '#include "../worker/session.h"\n',
                        "worker/tests.cc": '#include "tests/testing/fake.h"\n',
                        "kernels/device.cu": '#include "storage/block.h"\n'},
                   good={"text/a.cc": '// #include "worker/session.h" would be wrong\n#include "proto/base/ids.h"\n',
                         "text/b.cc": '#include "absl/status/status.h"\n#include <vector>\n',
                         "tests/x_test.cc": '#include "worker/session.h"\n#include "tests/testing/fake.h"\n',
                         "apps/main.cc": '#include "worker/session.h"\n#include "coordinator/catalog.h"\n'})

    def test_an_include_of_a_neighbour_without_its_folder_is_found(self):
        found = list(rules.check_arrows(tree_of({"text/a.cc": '#include "b.h"\n', "text/b.h": "#pragma once\n"})))
        self.assertEqual([v.path for v in found], ["text/a.cc"])

    def test_link_dependencies_follow_the_arrows(self):
        worker = {"worker/CMakeLists.txt": "palimpsest_library(NAME worker\n  SRCS a.cc\n  DEPS base absl::status)\n",
                  "proto/CMakeLists.txt": "palimpsest_library(NAME base SRCS b.cc DEPS fmt::fmt)\n"}
        self.assertEqual(list(rules.check_link_arrows(tree_of(worker))), [])
        worker["text/CMakeLists.txt"] = "palimpsest_library(NAME gguf SRCS g.cc\n  DEPS base # why\n  worker)\n"
        self.assertEqual([v.path for v in rules.check_link_arrows(tree_of(worker))], ["text/CMakeLists.txt"])

    def test_every_library_is_held_by_its_owners(self):
        examples = {"RocksDB": "rocksdb/db.h", "gRPC": "grpcpp/grpcpp.h", "Beast and Asio": "boost/beast/core.hpp",
                    "UCX": "ucp/api/ucp.h", "NCCL": "nccl.h", "CUDA": "cuda_runtime_api.h", "spdlog": "spdlog/spdlog.h",
                    "yaml-cpp": "yaml-cpp/yaml.h", "PCRE2": "pcre2.h", "OpenSSL": "openssl/evp.h",
                    "CLI11": "CLI/CLI.hpp", "prometheus-cpp": "prometheus/counter.h", "xxHash": "xxhash.h",
                    "GoogleTest": "gtest/gtest.h"}
        self.assertEqual(set(examples), set(rules.LIBRARIES))
        for library, header in examples.items():
            text = f"#include <{header}>\n"
            stranger = list(rules.check_libraries(tree_of({"worker/model/stranger.cc": text})))
            self.assertEqual(len(stranger), 1, library)
            self.assertEqual(list(rules.check_libraries(tree_of({"tests/worker/x_test.cc": text}))), [], library)
            for owner in rules.LIBRARIES[library][1]:
                owning = owner.replace("*", "x")
                self.assertEqual(list(rules.check_libraries(tree_of({owning: text}))), [], owning)
                if owner.endswith(".cc"):
                    header_file = owning[:-3] + ".h"
                    self.assertEqual(len(list(rules.check_libraries(tree_of({header_file: text})))), 1, header_file)

    def test_lines(self):
        self.finds(rules.check_lines,
                   bad={"text/tab.cc": "int\tx;\n", "text/long.h": "x" * 111 + "\n"},
                   good={"text/a.cc": "x" * 110 + "\n", "docs/page.md": "x" * 300 + "\n", "deploy/q.txt": "a\tb\n"})

    def test_newlines(self):
        self.finds(rules.check_newlines,
                   bad={"text/a.cc": "int x;", "docs/a.md": "text", "tests/t.py": "pass"},
                   good={"text/a.cc": "int x;\n", "tests/golden/g1.txt": "a prompt", "text/empty.h": ""})

    def test_headers(self):
        self.finds(rules.check_headers,
                   bad={"text/a.h": "#ifndef A\n", "kernels/cuda/a.cuh": "// #pragma once\n", "text/a.cpp": "\n"},
                   good={"text/a.h": "// What it is.\n#pragma once\n", "text/a.cc": "int x;\n"})

    def test_environment(self):
        self.finds(rules.check_environment,
                   bad={"proto/base/a.cc": 'auto* v = std::getenv("HOME");\n', "worker/a.cc": 'secure_getenv ("X");\n'},
                   good={"apps/main.cc": 'std::getenv("HOME");\n', "tests/a_test.cc": 'getenv("X");\n',
                         "text/a.cc": "// no getenv() here\n"})

    def test_a_source_that_is_not_built_is_found(self):
        lists = {"text/CMakeLists.txt": "palimpsest_library(NAME a SRCS a.cc)\n", "text/a.cc": "\n"}
        self.assertEqual(list(rules.check_built(tree_of(lists))), [])
        lists["tests/text/forgotten_test.cc"] = "\n"
        self.assertEqual([v.path for v in rules.check_built(tree_of(lists))], ["tests/text/forgotten_test.cc"])

    def test_readmes(self):
        self.finds(rules.check_readmes, bad={"text/a.cc": "\n", "deploy/README.md": " \n"},
                   good={"text/a.cc": "\n", "text/README.md": "# text\n"})

    def test_links(self):
        self.finds(rules.check_links,
                   bad={"docs/a.md": "see [b](b.md)\n", "README.md": "[x](docs/none.md#part)\n"},
                   good={"docs/a.md": "[top](../README.md#one) [code](../text/a.h) [docs](../docs) [w](https://e.org)\n",
                         "README.md": "[a](docs/a.md) [LICENSE](LICENSE)\n", "LICENSE": "free\n", "text/a.h": "\n"})

    def test_words(self):
        # Put together here, so that this file may say them.
        slash = "/"
        self.finds(rules.check_words,
                   bad={"docs/a.md": f"see {slash}work/notes\n", "deploy/b.sh": f"cd {slash}root\n",
                        "docs/c.md": "https://py" + "pi.org/x\n", "docs/d.md": "http://deb.deb" + "ian.org/x\n",
                        "docs/e.md": "by a sub" + "agent\n"},
                   good={"docs/a.md": "as root, the work/play balance of network/work.md; PyPI, Debian; /workspace\n"})

    def test_build_folders_and_binary_files_are_not_read(self):
        with tempfile.TemporaryDirectory() as top:
            pathlib.Path(top, "build").mkdir()
            pathlib.Path(top, "build", "a.h").write_text("\t")
            pathlib.Path(top, "model.bin").write_bytes(b"\xff\xfe\x00")
            self.assertEqual(rules.Tree(pathlib.Path(top)).files, {})


class TheRepositoryHoldsThem(unittest.TestCase):
    def test_repository(self):
        tree = rules.Tree(REPOSITORY)
        self.assertIn("proto/base/status.h", tree.files, f"{REPOSITORY} is not the repository")
        violations = rules.check_all(tree)
        if violations:
            self.fail("\n" + "\n".join(str(v) for v in violations))


if __name__ == "__main__":
    unittest.main(verbosity=1)
