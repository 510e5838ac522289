#!/usr/bin/env python3
"""Writes strings and the ids that byte-level BPE must give for them, computed the slow, plain way.

The splits are written for the `regex` module from their published descriptions, digits first where a model does
so; merging looks through all pairs again after each merge. The vocabulary is made up from a seed: trained merges,
then random ones, shuffled, so that ranks contradict each other as a real vocabulary's never do; some bytes have
no token.

  tokenizer_oracle.py OUT.json                  all: 600 strings for each split
  tokenizer_oracle.py --small OUT.json          the fixture that is checked in as tests/text/tokenizer_fixture.json

Output: {"tokens": [...], "types": [...], "merges": ["left right", ...], NAME OF A SPLIT: [CASE, ...], ...} with
CASE {"text": str, "special": bool (special tokens are parsed), "ids": [int, ...]}. Needs: regex.
"""
import argparse
import collections
import json
import random
import unicodedata

import regex

GPT2 = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = regex.compile(CL100K % 3)
QWEN2 = regex.compile(CL100K % 1)
DIGIT = regex.compile(r"(\p{N})")

SPLITS = {
    "smollm": lambda text: [w for part in DIGIT.split(text) for w in GPT2.findall(part)],
    "gpt-2": GPT2.findall,
    "llama-bpe": LLAMA3.findall,
    "qwen2": QWEN2.findall,
}
WHOLE_WORDS_FIRST = {"llama-bpe"}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SPECIAL = [("<|im_end|>", CONTROL), ("<|im_end|>\n", CONTROL), ("<|im_start|>", CONTROL), ("<think>", USER_DEFINED),
           ("<thi", USER_DEFINED), ("\u00e9\u4f60", CONTROL)]
MISSING_BYTES = [0x04, 0x06, 0x13, 0xF1]  # 0xF1 leads planes 4 to 7, which are unassigned

TRICKY = [
    "", " ", "  ", "   ", "\n", "\r\n", "\r\n\r\n", " \n", "\n ", " \n \n x", "\t\t", "\t x", "a", " a",
    "  a", "   a b  c ",
    "Hello, world!", "it's we'll I'm they'd you've O'Neil's don't 're 'LL 'S 'Ve 'D' 'M''T",
    "I'VE IT'S 'twas ''s", "'\u017f \u212aelvin",
    "12345 67 8.90 1,000,000", "a  5", "a 5  6   7", "  12", "x1y22z333w4444v55555",
    "\u0663\u0664 \u00bd \u00b2\u00b3 \u2460\u2163 \u4e00\u4e8c\u5341 \uff11\uff12", "3\u20e3 1\u0301",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstro\u0308m",
    "\u0915\u094d\u0937\u093f \u0e01\u0e33\u0e25\u0e31\u0e07 \u05e9\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\U0001f642\U0001f643\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f1f0\U0001f1f7",
    "\U0001f44d\U0001f3fd \u2764\ufe0f", "\U0001d538\U0001d539 \U0001f130",
    "\u00a0non\u00a0breaking\u2003em\u2009thin\u3000wide\u1680og",
    "zero\u200bwidth\u200djoin\ufeffbom\u2060", "line\u2028sep\u2029par\u0085nel\u000bvt\u000cff",
    "a\u180eb \u180e c", "\x1c\x1d\x1e\x1f a\x1cb", "\x00\x01\x7f\x80\x9f", "a\x04b\x04\x04c\x06",
    "\U00040000x",
    "<|im_start|>user\nhi<|im_end|>\n<|im_end|>", "<|im_end|", "<|im_end|>x<think>y</think> <thi",
    "<<think>>", "1<think>2  <think> 3", "\u00e9\u4f60\u00e9", "  <|im_end|>  ",
    "int main() {\n\treturn 0; // x\n}\n\n\n", "!!!???...---===\n\n", "!?\r\n x",
    "http://example.com/a?b=c&d=e#f_g-h", "$3.14 \u20ac20 \u00a35 50%", "camelCase snake_case",
    "a" * 300, "ab" * 200, " " * 300, " " * 300 + "x", "\n" * 100, "1" * 100, "=" * 150, "e\u0301" * 60,
    "\u4e16\u754c" * 50, "\U0001f642" * 40, "xyz " * 40,
    "\ud7ff\ue000\uffff\U00010000\U0010ffff",
]

WORDS = ("the of and to in that he shall unto for lord his a they be is with not all thou it him them as was my which "
         "there cache token Tokyo NASA house's don't we'll they'RE naive x y z 2024 7391842 3.14 100% foo_bar "
         "\u00fcber gar\u00e7on \u0434\u043e\u043c \u043c\u0438\u0440 \u4e2d\u6587 \u65e5\u672c \uc548\ub155 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \U0001f642 \u2014 \u201cq\u201d").split()
GLUE = [" ", " ", " ", " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", ", ", ". ", "!\n", "'s ", "-", "",
        "\u00a0", "\u3000", "<|im_end|>", "<think>"]


def byte_alphabet():
    """GPT-2's character for each byte."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printing]
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


ALPHABET = byte_alphabet()


def written(text):
    return "".join(ALPHABET[b] for b in text.encode())


def assigned_characters(rng, count):
    """Random characters that every Unicode version since 3.2 has, so that all tables agree on them."""
    out = []
    while len(out) < count:
        limit = rng.choice([0x80, 0x250, 0x800, 0x3100, 0xD800, 0x11000, 0x20000, 0x110000])
        c = rng.randrange(limit)
        if 0xD800 <= c < 0xE000:
            continue
        if unicodedata.ucd_3_2_0.category(chr(c)) != "Cn":
            out.append(chr(c))
    return out


def random_string(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return "".join(rng.choice(WORDS) + rng.choice(GLUE) for _ in range(rng.randrange(1, 25)))
    if kind == 1:
        return "".join(assigned_characters(rng, rng.randrange(1, 40)))
    if kind == 2:  # random bytes, what is not UTF-8 replaced
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40))).decode("utf-8", "replace")
    if kind == 3:  # everything that splits tell apart, in any order
        signs = [" ", " ", "\n", "\r", "\t", "a", "B", "'", "s", "re", "7", "42", ".", "_", "\u00e9",
                 "\u0301", "\u00a0", "\u4e16", "\u2028", "\u00bd", "\U0001f642", "\x04"]
        return "".join(rng.choice(signs) for _ in range(rng.randrange(1, 50)))
    return "".join(rng.choice(TRICKY)[:30] for _ in range(rng.randrange(2, 5)))


def merge_once(symbols, at):
    return symbols[:at] + [symbols[at] + symbols[at + 1]] + symbols[at + 2:]


def trained_merges(words, count):
    """The most frequent pair of all words again and again; the alphabetically first of equals."""
    counts = collections.Counter(words)
    state = {w: list(w) for w in counts}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, symbols in state.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for word, symbols in state.items():
            at = 0
            while at + 1 < len(symbols):
                if (symbols[at], symbols[at + 1]) == best:
                    symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
                at += 1
    return merges


class Vocabulary:
    def __init__(self, rng, strings, trained, random_merges):
        missing = {ALPHABET[b] for b in MISSING_BYTES}
        tokens = [ALPHABET[b] for b in range(256) if b not in MISSING_BYTES]
        words = [written(w) for s in strings for w in GPT2.findall(s)]
        words = [w for w in words if not missing & set(w)]
        merges = trained_merges(words, trained)
        tokens += [t for t in dict.fromkeys(a + b for a, b in merges) if t not in tokens]
        known = set(tokens)
        while len(merges) < trained + random_merges:
            a, b = rng.choice(tokens), rng.choice(tokens)
            if rng.random() < 0.5:  # another way to make a token that is there
                whole = rng.choice([t for t in tokens[200:] if len(t) > 2] or [a + b])
                cut = rng.randrange(1, len(whole))
                a, b = whole[:cut], whole[cut:]
                if a not in known or b not in known:
                    continue
            if len(a + b) > 12 or (a, b) in merges:
                continue
            if a + b not in known:
                known.add(a + b)
                tokens.append(a + b)
            merges.append((a, b))
        rng.shuffle(merges)
        # Whole words without any merge that makes them, for splits that look words up first.
        for word in sorted(set(words)):
            if len(tokens) > 40 and word not in known and rng.random() < 0.05 and len(word) < 40:
                known.add(word)
                tokens.append(word)
        rng.shuffle(tokens)
        self.merges = merges
        self.tokens = tokens[:3] + [t for t, _ in SPECIAL] + tokens[3:]
        kinds = dict(SPECIAL)
        self.types = [kinds.get(t, NORMAL) for t in self.tokens]
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.ranks = {pair: i for i, pair in enumerate(merges)}

    def encode_word(self, word, whole_words_first):
        symbols = list(written(word))
        if whole_words_first and "".join(symbols) in self.ids:
            return [self.ids["".join(symbols)]]
        while True:
            ranked = [(self.ranks[p], i) for i, p in enumerate(zip(symbols, symbols[1:])) if p in self.ranks]
            if not ranked:
                return [self.ids[s] for s in symbols if s in self.ids]
            symbols = merge_once(symbols, min(ranked)[1])

    def encode(self, text, split, special):
        parts = [text]
        if special:
            by_length = sorted((t for t, _ in SPECIAL), key=len, reverse=True)
            parts = regex.split("(" + "|".join(regex.escape(t) for t in by_length) + ")", text)
        ids = []
        for i, part in enumerate(parts):
            if i % 2 == 1:
                ids.append(self.ids[part])
                continue
            words = SPLITS[split](part)
            assert "".join(words) == part, (split, part)
            for word in words:
                ids += self.encode_word(word, split in WHOLE_WORDS_FIRST)
        return ids


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("out")
    args = parser.parse_args()
    rng = random.Random(20190214)
    strings = TRICKY + [random_string(rng) for _ in range(600 - len(TRICKY))]
    vocabulary = Vocabulary(rng, strings, *((60, 40) if args.small else (500, 500)))
    chosen = [s for s in TRICKY if len(s) < 80][:64] + [TRICKY[-1]] if args.small else strings
    splits = {
        name: [{"text": s, "special": i % 2 == 0, "ids": vocabulary.encode(s, name, i % 2 == 0)}
               for i, s in enumerate(chosen)]
        for name in SPLITS
    }
    with open(args.out, "w", encoding="ascii") as out:  # a line for each list and each case
        lines = [f"{json.dumps(key)}:{compact(value)}" for key, value in (
            ("tokens", vocabulary.tokens), ("types", vocabulary.types),
            ("merges", [f"{a} {b}" for a, b in vocabulary.merges]))]
        for name, cases in splits.items():
            lines.append(f"{json.dumps(name)}:[\n" + ",\n".join(compact(case) for case in cases) + "]")
        out.write("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
