"""Writes lib/text/unicode.h: the Unicode tables that the tokenizer needs.

    pip install unicodedata2==16.0.0
    python3 lib/text/unicode.py > lib/text/unicode.h

Python's own unicodedata has the tables of another version."""
import unicodedata2 as u

ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(wanted):
    """Flat list first, last, first, last, ... of the code points for which wanted(c) is true."""
    out = []
    for c in filter(wanted, ALL):
        if out and out[-1] == c - 1:
            out[-1] = c
        else:
            out += [c, c]
    return out


def classes():
    """first, last, canonical combining class, wherever it is not 0."""
    out = []
    for c in ALL:
        k = u.combining(chr(c))
        if k and out and out[-1] == k and out[-2] == c - 1:
            out[-2] = c
        elif k:
            out += [c, c, k]
    return out


def decompositions():
    """[code, first, second or 0] by one step of canonical decomposition; Hangul is arithmetic."""
    out = []
    for c in ALL:
        d = u.decomposition(chr(c))
        if d and d[0] != '<':
            parts = [int(x, 16) for x in d.split()]
            out.append([c] + parts + [0] * (2 - len(parts)))
    table = {c: (a, b) for c, a, b in out}
    for c, a, b in out:  # what nfc.h relies on
        full = u.normalize('NFD', chr(c))
        assert b not in table and len(full) <= 4 and len(full) <= 2 * len(chr(c).encode())
    return out


def compositions(table):
    """Indices of the pairs that compose again, in the order of (first, second)."""
    kept = [i for i, (c, a, b) in enumerate(table) if b and u.normalize('NFC', chr(c)) == chr(c)]
    return sorted(kept, key=lambda i: table[i][1:])


def emit(name, kind, numbers, hexadecimal=True):
    print('static const %s %s[] = {' % (kind, name))
    line = '   '
    for x in numbers:
        word = ' 0x%X,' % x if hexadecimal and x > 9 else ' %d,' % x
        if len(line) + len(word) > 100:
            print(line)
            line = '   '
        line += word
    print(line + '\n};\n')


SPACE = ranges(lambda c: chr(c).isspace() and c not in (0x1C, 0x1D, 0x1E, 0x1F))
DECOMPOSITION = decompositions()
print("""/* unicode.h: tables of Unicode %s, generated; do not edit. The functions are in nfc.h.
 *
 *   pip install unicodedata2==%s && python3 lib/text/unicode.py > lib/text/unicode.h
 *
 * Ranges are first, last, first, last, ... in increasing order. */
#ifndef UNICODE_H
#define UNICODE_H

#include <stdint.h>
""" % (u.unidata_version, u.unidata_version))
print('/* General category L: letters. */')
emit('UNICODE_LETTER', 'uint32_t', ranges(lambda c: u.category(chr(c))[0] == 'L'))
print('/* General category N: numbers. */')
emit('UNICODE_NUMBER', 'uint32_t', ranges(lambda c: u.category(chr(c))[0] == 'N'))
print('/* White_Space. */')
emit('UNICODE_SPACE', 'uint32_t', SPACE)
print('/* Canonical combining class: first, last, class. */')
emit('UNICODE_CLASS', 'uint32_t', classes())
print('/* Canonical decomposition, one step: code, first, second (0: none). */')
emit('UNICODE_DECOMPOSITION', 'uint32_t', sum(DECOMPOSITION, []))
print('/* The decompositions that compose again, by (first, second): code = 3 * entry. */')
emit('UNICODE_COMPOSITION', 'uint16_t', compositions(DECOMPOSITION), False)
print('#endif')
