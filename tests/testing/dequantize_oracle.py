#!/usr/bin/env python3
"""Random blocks of each tensor type and what the `gguf` package expands them to, for tests/kernels/dequantize_test.cc.

    dequantize_oracle.py OUTPUT [BLOCKS] [SEED]

OUTPUT is a sequence of records, little endian:
    u32 type, u32 elements per block, u32 bytes per block, u32 blocks,
    the blocks (u8), their numbers (f32, elements per block x blocks)
The checked-in golden is `dequantize_oracle.py tests/golden/dequantize.bin 2 7` (gguf 0.19.0).
"""
import struct
import sys

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

# Where a block of the type keeps the halves that scale it; the rest are integers and may be any bytes.
SCALES = {
    Type.F32: [],
    Type.F16: [0],
    Type.BF16: [],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q6_K: [208],
}


def finite_halves(rng, count):
    """Random bits, so subnormals and both zeros too; exponents of infinity and NaN become 0."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where((bits & 0x7C00) == 0x7C00, bits & 0x83FF, bits).astype(np.uint16)


def random_blocks(rng, kind, blocks):
    _, block_bytes = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    for at in SCALES[kind]:
        raw[:, at:at + 2] = finite_halves(rng, blocks).view(np.uint8).reshape(blocks, 2)
    if kind in (Type.F32, Type.BF16):  # sign and most of the exponent are in the last byte: keep it finite
        raw[:, -1] = np.where((raw[:, -1] & 0x7F) == 0x7F, raw[:, -1] & 0xBF, raw[:, -1])
    return raw


def every_half():
    """All finite halves in order: 63,488 of them."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    return bits[(bits & 0x7C00) != 0x7C00].view(np.uint8).reshape(-1, 2)


def main():
    path = sys.argv[1]
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    rng = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    with open(path, "wb") as out:
        for kind in SCALES:
            elements, block_bytes = GGML_QUANT_SIZES[kind]
            if kind == Type.F16 and blocks >= 100:
                raw = every_half()
            else:
                raw = random_blocks(rng, kind, blocks if elements > 1 else 32 * blocks)
            numbers = np.ascontiguousarray(gguf.dequantize(raw, kind), dtype="<f4").reshape(-1)
            assert numbers.size == len(raw) * elements and np.isfinite(numbers).all(), kind
            out.write(struct.pack("<4I", int(kind), elements, block_bytes, len(raw)))
            out.write(raw.tobytes())
            out.write(numbers.tobytes())


if __name__ == "__main__":
    main()
