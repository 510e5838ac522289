"""Checks tests/storage/golden/ by the layouts written in storage/envelope.md and storage/data_key_file.h.

An independent second implementation, of the library `cryptography` (48.0) and libxxhash: it opens the key file, with
that the wrapped key, with that the encrypted tile, and compares all fields. By hand, after a new version's files were
made: python3 tests/testing/envelope_golden.py
"""

import ctypes
import ctypes.util
import hashlib
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "storage" / "golden"
PAYLOAD = bytes((7 * i + 3) % 256 for i in range(2 * 4 * 16 * 2))
NONCE = bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0])
KEY_NUMBER = 0x01020304


class Xxh128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128(data):
    library = ctypes.CDLL(ctypes.util.find_library("xxhash"))
    library.XXH3_128bits.restype = Xxh128
    hashed = library.XXH3_128bits(data, ctypes.c_size_t(len(data)))
    return struct.pack(">QQ", hashed.high, hashed.low)  # canonical: big-endian, the high half first


def header(algorithm, nonce, number):
    block_id = hashlib.sha256(b"a golden block").digest()
    return (b"PLMPSBLK" + struct.pack("<HBBI", 1, algorithm, 0, 1) + block_id
            + struct.pack("<iiiiQ", 7, 2, 16, 4, len(PAYLOAD)) + nonce + struct.pack("<Iii", number, 30, 3) + bytes(16))


def read(name):
    return (GOLDEN / name).read_bytes()


def checked(data, magic):
    """Without the checksum at its end."""
    assert data[:10] == magic + struct.pack("<H", 1)
    assert hashlib.sha256(data[:-16]).digest()[:16] == data[-16:]
    return data[:-16]


key_file = checked(read("key_file_v1.bin"), b"PLMPSKEY")
wrapped = checked(read("wrapped_key_v1.bin"), b"PLMPSWRP")
assert key_file[10:16] == bytes(6)
assert wrapped[10:32] == bytes(2) + struct.pack("<I", KEY_NUMBER) + NONCE + bytes(4)
data_key = AESGCM(key_file[16:]).decrypt(NONCE, wrapped[32:], wrapped[:32])
assert data_key == bytes(range(0x20, 0x40))

plain = header(1, bytes(12), 0)
assert read("tile_v1_xxh3.bin") == plain + xxh3_128(plain + PAYLOAD) + PAYLOAD
sealed = header(2, NONCE, KEY_NUMBER)
cipher = AESGCM(data_key).encrypt(NONCE, PAYLOAD, sealed)
assert read("tile_v1_aes256gcm.bin") == sealed + cipher[-16:] + cipher[:-16]
print("the golden files are what the layouts say")
