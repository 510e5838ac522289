"""The rules that hold the shape of the repository, as tables and small checks. Standard library only.

Each check takes a Tree and yields Violations: a place, what is wrong and what to do. The tables come first; a new
module, library or file that owns a library is one line here. arrows_test.py feeds every check a small bad tree (a
check that cannot fail is worthless) and then the repository itself.
"""

import fnmatch
import pathlib
import posixpath
import re
from typing import Iterator, NamedTuple

# What each module may include, besides itself. tests/ and deploy/ see everything and nothing sees them.
MAY_INCLUDE = {
    "proto": (),
    "text": ("proto",),
    "kernels": ("proto", "text"),
    "storage": ("proto", "text", "kernels"),
    "worker": ("proto", "text", "kernels", "storage"),
    "coordinator": ("proto", "text", "kernels", "storage"),
    "apps": ("proto", "text", "kernels", "storage", "worker", "coordinator"),
}

# Library: (regular expression over the included path, files that may include it). tests/ may include any of them, and
# gtest and gmock belong to tests/ alone. No entry is a header: what includes us must not pay for what we include.
LIBRARIES = {
    "RocksDB": (r"rocksdb/", ("coordinator/catalog*.cc", "coordinator/cluster/embedded*.cc",
                              "storage/tier/rocksdb*.cc")),
    "gRPC": (r"(grpcpp|grpc)/|.*\.grpc\.pb\.h$", ("storage/transport/grpc*.cc", "coordinator/cluster/etcd*.cc",
                                                  "coordinator/*_service*.cc", "worker/*_service*.cc",
                                                  "coordinator/*_client*.cc", "worker/*_client*.cc",
                                                  # what both ends share: status codes, credentials, keepalive
                                                  "proto/rpc/*.cc")),
    "Beast and Asio": (r"boost/(beast|asio)", ("coordinator/http/http_*.cc", "apps/*client*.cc")),
    "UCX": (r"(ucp|uct|ucs)/", ("storage/transport/ucx*.cc",)),
    "NCCL": (r"nccl\.h$", ("storage/transport/nccl*.cc", "storage/transport/nccl*.cu")),
    "CUDA": (r"(cuda|cudnn|cublas|curand|cub/|thrust/|cutlass/|cooperative_groups|mma\.h$)",
             ("kernels/cuda/*", "storage/transport/nccl*", "storage/tier/device*.cu")),
    "spdlog": (r"spdlog/", ("proto/base/log*.cc",)),
    "yaml-cpp": (r"yaml-cpp/", ("proto/base/config*.cc", "proto/base/yaml*.cc",
                                  # a list of maps, which the one-level reader of config.cc has no words for
                                  "coordinator/http/api_keys*.cc")),
    "PCRE2": (r"pcre2", ("text/pre_tokenizer*.cc",)),
    "OpenSSL": (r"openssl/", ("proto/base/ids.cc", "proto/base/hash*.cc", "proto/base/log.cc",
                              "storage/data_key.cc")),
    "CLI11": (r"CLI/", ("apps/*.cc",)),
    "prometheus-cpp": (r"prometheus/", ("proto/base/metrics*.cc",)),
    "xxHash": (r"xxhash\.h$", ("proto/base/hash*.cc", "storage/*.cc", "coordinator/catalog*.cc")),
    "GoogleTest": (r"(gtest|gmock)/", ()),
}

# Folders that explain themselves in a README.md.
README_FOLDERS = ("proto", "text", "kernels", "storage", "worker", "coordinator", "apps", "deploy", "tests", "docs")

LINE_COLUMNS_MAX = 110
SOURCE_ENDINGS = (".cc", ".h", ".cu", ".cuh")
NEWLINE_ENDINGS = (*SOURCE_ENDINGS, ".py", ".sh", ".cmake", ".md", ".txt", ".yaml")
SKIPPED_FOLDERS = {".git", "build", ".cache", ".venv", "__pycache__", ".vscode", ".idea"}
TEXT_BYTES_MAX = 2 << 20  # larger files are data

# Nothing in a repository may depend on one machine or tell how it was made. Written so that no line here matches.
FORBIDDEN_WORDS = (
    (r"(?<![\w.\-*])/(w[o]rk|r[o]ot|f[a]rm)(/|\b)", "a path of one machine"),
    (r"py[p]i\.org|python[h]osted\.org|\.deb[i]an\.org", "a registry host"),
    (r"(?i)s[u]b-?agent|(?-i:\bC[E]O\b)", "a word about how the work is organised"),
)


class Violation(NamedTuple):
    path: str
    line: int  # 0: the file or folder as a whole
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


class Tree:
    """The text files below a folder, by their path from it, with '/'."""

    def __init__(self, top: pathlib.Path):
        self.files: dict[str, str] = {}
        folders = [top]
        while folders:
            for entry in sorted(folders.pop().iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    if entry.name not in SKIPPED_FOLDERS:
                        folders.append(entry)
                elif entry.is_file() and entry.name != ".git" and entry.stat().st_size <= TEXT_BYTES_MAX:
                    try:
                        text = entry.read_bytes().decode("utf-8")
                    except UnicodeDecodeError:
                        continue
                    self.files[entry.relative_to(top).as_posix()] = text

    def lines(self, *endings: str) -> Iterator[tuple[str, int, str]]:
        for path, text in sorted(self.files.items()):
            if path.endswith(endings):
                for number, line in enumerate(text.split("\n"), 1):
                    yield path, number, line


def module_of(path: str) -> str:
    return path.split("/", 1)[0]


INCLUDE = re.compile(r'^\s*#\s*(?:include|import)\s*(["<])([^">]+)[">]')


def includes(tree: Tree) -> Iterator[tuple[str, int, str, bool]]:
    for path, number, line in tree.lines(*SOURCE_ENDINGS):
        if match := INCLUDE.match(line):
            yield path, number, match[2], match[1] == '"'


def check_arrows(tree: Tree) -> Iterator[Violation]:
    for path, number, included, quoted in includes(tree):
        module, target = module_of(path), module_of(included)
        beside = (path.rsplit("/", 1)[0] + "/" + included) in tree.files
        if included.startswith(".") or "/../" in included or (quoted and beside):
            yield Violation(path, number, "arrows", f"'{included}': write the path from the repository's root")
        if module not in MAY_INCLUDE or target == module:
            continue
        if target in ("tests", "deploy") and "/" in included:
            yield Violation(path, number, "arrows", f"{module} includes {included}: only tests/ sees tests/")
        elif target in MAY_INCLUDE and "/" in included and target not in MAY_INCLUDE[module]:
            allowed = ", ".join(MAY_INCLUDE[module]) or "nothing but itself"
            yield Violation(path, number, "arrows", f"{module} includes {included}; it may see {allowed}")


LIBRARY_LINE = re.compile(r"palimpsest_library\s*\(\s*NAME\s+(\w+)([^)]*)\)")


def check_link_arrows(tree: Tree) -> Iterator[Violation]:
    """DEPS in CMake: the same arrows, so that a link cannot go where an include may not."""
    owners, depends = {}, []
    for path, text in tree.files.items():
        if path.endswith("CMakeLists.txt") and module_of(path) in MAY_INCLUDE:
            text = re.sub(r"#[^\n]*", "", text)
            for match in LIBRARY_LINE.finditer(text):
                owners[match[1]] = module_of(path)
                deps = re.split(r"\bDEPS\b", match[2], maxsplit=1)[1:]
                depends.append((path, match[1], [d for d in " ".join(deps).split() if "::" not in d and "$" not in d]))
    for path, name, deps in depends:
        for dep in deps:
            target = owners.get(dep)
            if target and target != owners[name] and target not in MAY_INCLUDE[owners[name]]:
                yield Violation(path, 0, "link-arrows", f"library {name} of {owners[name]} links {dep} of {target}")


def check_libraries(tree: Tree) -> Iterator[Violation]:
    for path, number, included, _ in includes(tree):
        if module_of(path) in ("tests", "deploy"):
            continue
        for library, (pattern, owners) in LIBRARIES.items():
            if re.match(pattern, included) and not any(fnmatch.fnmatchcase(path, owner) for owner in owners):
                allowed = ", ".join(owners) or "tests/ only"
                yield Violation(path, number, "libraries", f"{included} is {library}: it stays in {allowed}")


def check_lines(tree: Tree) -> Iterator[Violation]:
    for path, number, line in tree.lines(*SOURCE_ENDINGS):
        if "\t" in line:
            yield Violation(path, number, "lines", "a tab: indent with spaces")
        if len(line) > LINE_COLUMNS_MAX:
            yield Violation(path, number, "lines", f"{len(line)} columns, {LINE_COLUMNS_MAX} are allowed")


def check_newlines(tree: Tree) -> Iterator[Violation]:
    for path, text in sorted(tree.files.items()):
        # Prompts are data: what a golden file ends with is part of it.
        if path.endswith(NEWLINE_ENDINGS) and text and not text.endswith("\n") and not path.startswith("tests/golden/"):
            yield Violation(path, 0, "newlines", "does not end with a newline")


def check_headers(tree: Tree) -> Iterator[Violation]:
    for path, text in sorted(tree.files.items()):
        if path.endswith((".h", ".cuh")) and not re.search(r"^#pragma once$", text, re.MULTILINE):
            yield Violation(path, 0, "headers", "no '#pragma once'")
        if path.endswith((".cpp", ".cxx", ".hpp", ".hh")):
            yield Violation(path, 0, "headers", "C++ files are called .cc and .h")


def check_environment(tree: Tree) -> Iterator[Violation]:
    for path, number, line in tree.lines(*SOURCE_ENDINGS):
        if module_of(path) in MAY_INCLUDE and module_of(path) != "apps":
            if re.search(r"\b(secure_)?getenv\s*\(", line.split("//")[0]):
                yield Violation(path, number, "environment", "getenv: only apps/ reads the environment, and passes it on")


def check_built(tree: Tree) -> Iterator[Violation]:
    """A source that no CMakeLists.txt names is neither compiled nor tested."""
    lists = "\n".join(text for path, text in tree.files.items() if path.endswith(("CMakeLists.txt", ".cmake")))
    named = set(re.findall(r"[\w.\-]+\.(?:cc|cu)\b", lists))
    for path in sorted(tree.files):
        if path.endswith((".cc", ".cu")) and path.rsplit("/", 1)[-1] not in named:
            yield Violation(path, 0, "built", "no CMakeLists.txt names this file")


def check_readmes(tree: Tree) -> Iterator[Violation]:
    for folder in README_FOLDERS:
        exists = any(path.startswith(folder + "/") for path in tree.files)
        if exists and not tree.files.get(folder + "/README.md", "").strip():
            yield Violation(folder, 0, "readmes", "no README.md: ten lines on what is here and where to begin")


def check_links(tree: Tree) -> Iterator[Violation]:
    """Links between our own pages and files lead somewhere."""
    for path, number, line in tree.lines(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line):
            if ":" in target:
                continue
            found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if found not in tree.files and not any(file.startswith(found + "/") for file in tree.files):
                yield Violation(path, number, "links", f"there is no {found}")


def check_words(tree: Tree) -> Iterator[Violation]:
    for path, text in sorted(tree.files.items()):
        for pattern, what in FORBIDDEN_WORDS:
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                yield Violation(path, line, "words", f"'{match[0]}' is {what}")


CHECKS = (check_arrows, check_link_arrows, check_libraries, check_lines, check_newlines, check_headers,
          check_environment, check_built, check_readmes, check_links, check_words)


def check_all(tree: Tree) -> list[Violation]:
    return [violation for check in CHECKS for violation in check(tree)]
