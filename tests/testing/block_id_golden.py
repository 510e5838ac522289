"""Prints the golden ids of tests/storage/block_id_test.cc, by the encoding written in storage/block_id.h.

An independent second implementation: if it and the C++ differ, one of them is wrong, and if both changed, blocks that
are on users' disks are no longer found.
"""

import hashlib
import hmac
import struct


def field(data):
    return struct.pack("<Q", len(data)) + data


def integer(code, value):
    return field(struct.pack("<" + code, value))


SCHEMA = b"".join([
    field(bytes(range(32))),                # model_hash
    field(bytes([0xA5] * 32)),              # adapter_hash
    integer("i", 30), integer("i", 9), integer("i", 3), integer("i", 64),
    integer("i", 0),                        # attention_window
    integer("d", 100000.0), integer("i", 64),
    field(b"linear:factor=2"), field(b"bf16"), field(b"head-major/unrotated"),
    integer("I", 1), integer("i", 64),      # format_version, block_tokens
    field(b"cpu/avx512bf16/q4_1"), field(b"anchored"), field(b"anchor=512"),
])
KEY = bytes(range(100, 132))


def sign(message):
    return hmac.new(KEY, message, hashlib.sha256)


root = sign(field(b"palimpsest root") + SCHEMA)


def next_id(parent, position, tokens):
    ids = struct.pack(f"<{len(tokens)}i", *tokens)
    return sign(field(b"palimpsest block") + SCHEMA + field(parent.digest()) + integer("q", position) + field(ids))


first = next_id(root, 0, range(64))
second = next_id(first, 64, [49151, 0, 1])
for name, value in (("root", root), ("first", first), ("second", second)):
    print(name, value.hexdigest())
