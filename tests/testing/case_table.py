"""Writes text/jinja/case_table.inc: simple upper and lower case mappings as ranges, from Python's unicodedata.

Usage: python3 tests/testing/case_table.py > text/jinja/case_table.inc
A range {first, last, stride, delta} maps each stride-th code point c of first..last to c + delta. Characters whose
mapping is longer than one character, or whose title case is not their upper case, are listed apart.
"""
import unicodedata


def ranges(mapping):
    out = []
    for c in sorted(mapping):
        delta = mapping[c] - c
        if out and out[-1][3] == delta:
            first, last, stride, _ = out[-1]
            if first == last and c - last in (1, 2):
                out[-1] = (first, c, c - last, delta)
                continue
            if first != last and c - last == stride:
                out[-1] = (first, c, stride, delta)
                continue
        out.append((c, c, 1, delta))
    return out


def main():
    upper, lower, special = {}, {}, []
    for c in range(0x80, 0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        s = chr(c)
        if len(s.upper()) != 1 or len(s.lower()) != 1 or s.title() != s.upper() or c == 0x3A3:
            special.append(c)
            continue
        if s.upper() != s:
            upper[c] = ord(s.upper())
        if s.lower() != s:
            lower[c] = ord(s.lower())
    print("// Made by tests/testing/case_table.py from Unicode %s; do not edit." % unicodedata.unidata_version)
    for name, mapping in (("kUpper", upper), ("kLower", lower)):
        print("constexpr CaseRange %s[] = {" % name)
        for r in ranges(mapping):
            print("    {0x%X, 0x%X, %d, %d}," % r)
        print("};")
    print("constexpr uint32_t kSpecialCase[] = {")
    for i in range(0, len(special), 12):
        print("    " + " ".join("0x%X," % c for c in special[i:i + 12]))
    print("};")


main()
