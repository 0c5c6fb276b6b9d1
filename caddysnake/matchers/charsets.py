"""Sets of characters: ranges of code points, the named classes of RE2's syntax, and folding of case."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache

LAST = sys.maxunicode

Ranges = tuple[tuple[int, int], ...]
"""Code points from, to; in order, and none touches another."""

_DIGIT: Ranges = ((0x30, 0x39),)
_SPACE: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
PERL_CLASSES = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
POSIX_CLASSES: dict[str, Ranges] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CATEGORIES = """
    C=Other Cc=Control Cf=Format Cn=Unassigned Co=PrivateUse Cs=Surrogate L=Letter Ll=LowercaseLetter Lm=ModifierLetter
    Lo=OtherLetter Lt=TitlecaseLetter Lu=UppercaseLetter M=Mark Mc=SpacingMark Me=EnclosingMark Mn=NonspacingMark
    N=Number Nd=DecimalNumber Nl=LetterNumber No=OtherNumber P=Punctuation Pc=ConnectorPunctuation Pd=DashPunctuation
    Pe=ClosePunctuation Pf=FinalPunctuation Pi=InitialPunctuation Po=OtherPunctuation Ps=OpenPunctuation S=Symbol
    Sc=CurrencySymbol Sk=ModifierSymbol Sm=MathSymbol So=OtherSymbol Z=Separator Zl=LineSeparator Zp=ParagraphSeparator
    Zs=SpaceSeparator
"""
_CATEGORY_OF_NAME = {name.lower(): pair.partition("=")[0] for pair in _CATEGORIES.split() for name in pair.split("=")}
"""General categories by their names, short and long. Spaces, hyphens, underscores and case do not count."""
_WIDE_CLASSES: dict[str, Ranges] = {"any": ((0, LAST),), "ascii": ((0, 0x7F),)}


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """*ranges*, in any order and overlapping, in order and apart."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def negated(ranges: Ranges) -> Ranges:
    """All characters that are not in *ranges*."""
    found = []
    start = 0
    for low, high in ranges:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        found.append((start, LAST))
    return tuple(found)


def unicode_class(name: str) -> Ranges | None:
    """The characters of a general category, by any of its names; ``None`` when there is none of that name."""
    key = re.sub("[ _-]", "", name).lower()
    if key in _WIDE_CLASSES:
        return _WIDE_CLASSES[key]
    return _category(_CATEGORY_OF_NAME[key]) if key in _CATEGORY_OF_NAME else None


@cache
def _category(name: str) -> Ranges:
    """The characters of a general category, or of all those that begin with its letter."""
    codes = (code for code in range(LAST + 1) if unicodedata.category(chr(code)).startswith(name))
    return merged((code, code) for code in codes)


def folded(ranges: Ranges) -> Ranges:
    """*ranges* with every character that differs from one of them in nothing but case."""
    codes: list[int] = []
    for low, high in ranges:
        for cased, others in _CASES_OF_ASCII.items() if high < 0x80 else _cases().items():
            if low <= cased <= high:
                codes += others
    return merged([*ranges, *((code, code) for code in codes)])


# Two letters beyond ASCII are the letters k and s to Unicode: the sign for Kelvin, and the long s.
_CASES_OF_ASCII: dict[int, tuple[int, ...]] = {
    **{code: (code ^ 0x20,) for code in (*range(0x41, 0x5B), *range(0x61, 0x7B))},
    **{ord(letter): (ord(letter) ^ 0x20, 0x212A) for letter in "kK"},
    **{ord(letter): (ord(letter) ^ 0x20, 0x017F) for letter in "sS"},
}


@cache
def _cases() -> dict[int, tuple[int, ...]]:
    """Characters with more than one case, each with the others: simple folding, as in Unicode's CaseFolding.txt."""
    same: dict[str, list[int]] = {}
    for code in range(0x1E944):
        char = chr(code)
        fold = char.casefold()
        if len(fold) != 1:
            fold = char.lower()
        if fold != char or char.upper() != char:
            same.setdefault(fold, []).append(code)
            if len(fold) == 1:
                same[fold].append(ord(fold))
    return {
        code: tuple(other for other in set(codes) if other != code)
        for codes in same.values()
        for code in set(codes)
        if len(set(codes)) > 1
    }
