"""Find words in a prompt however they are spelt: letters, spaces and symbols are made plain before words are compared.

`child` is found in CHILD, c-h-i-l-d, ch1ld, chiiild, chi ld, chlid, ch*ld, with accents, with invisible characters,
and with letters of other alphabets that look alike.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial

# By Latin letter: Cyrillic, Greek, Armenian and other letters that look like it. Variants of a Latin letter itself
# (small capitals, in squares, with strokes) are known by their Unicode names.
LOOKALIKES = {
    "a": "аαɑ∂",
    "b": "вьβ",
    "c": "сϲᴄ",
    "d": "ԁժ",
    "e": "еεєҽ℮",
    "f": "ϝғք",
    "g": "ցɡ",
    "h": "һнհ",
    "i": "іιɪ",
    "j": "јϳյ",
    "k": "кκĸ",
    "l": "ⅼℓ׀ӏ",
    "m": "м",
    "n": "пηոո",
    "o": "оοσօ",
    "p": "рρ",
    "q": "ԛզ",
    "r": "г",
    "s": "ѕꜱ",
    "t": "тτ",
    "u": "υսц",
    "v": "ѵν",
    "w": "ԝωա",
    "x": "хχ",
    "y": "уүγ",
    "z": "ᴢ",
}
PLAIN = {ord(other): letter for letter, others in LOOKALIKES.items() for other in others}
NAMED = re.compile(r"LETTER (?:(?:SMALL|CAPITAL|DOTLESS|OPEN|SCRIPT|REVERSED|TURNED) )*([A-Z])(?: WITH .*)?$")
INVISIBLE = "\u115f\u1160\u3164\uffa0"  # that Unicode counts among letters
PICTURES = range(0x1F000, 0x20000)  # emoji, which models draw as their names say
LEET = str.maketrans({"0": "o", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g", "@": "a"})
LEET |= str.maketrans({"$": "s", "€": "e", "+": "t"})
SYMBOL = re.compile(r"(?P<number>\b\d{2,}\b)|\d|(?<=[\w@$!|€+])[@$!|€+](?=[\w@$!|€+])")
LONGEST = 40  # letters of what may be two words glued together
CAMEL = re.compile(r"\b[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,})+\b")
WORD = re.compile(r"[^\W\d_]+|\d+")


def plain(text: str) -> str:
    """Write a text in Latin letters, without accents, and with emoji as words; case and spaces stay."""
    text = html.unescape(text)
    if text.isascii():
        return text
    return "".join(map(_letter, unicodedata.normalize("NFKD", text)))


@lru_cache(maxsize=1 << 12)
def _letter(char: str) -> str:
    if char.isascii() or unicodedata.category(char) in ("Mn", "Me"):
        return char if char.isascii() else ""
    found = PLAIN.get(ord(char)) or PLAIN.get(ord(char.lower()[0]))
    if found:
        return found
    name = unicodedata.name(char, "")
    named = NAMED.search(name) if name.startswith(("LATIN", "NEGATIVE", "SQUARED", "REGIONAL", "CROSSED")) else None
    if named:
        return named[1].lower()
    return f" {name} " if ord(char) in PICTURES else char


def words(text: str) -> list[str]:
    """Return the words of a text in small letters and its numbers, in order: all else only stands between them."""
    return WORD.findall(plain(_without(text)).casefold())


def _without(text: str, instead: str = "") -> str:
    """Remove characters that nobody sees (zero-width spaces, soft hyphens, marks of direction)."""
    if text.isascii():
        return text
    return "".join(instead if unicodedata.category(char) == "Cf" or char in INVISIBLE else char for char in text)


@lru_cache(maxsize=64)
def readings(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of a text in every way in which it may be meant; in the first two, digits are digits."""
    joined = plain(_without(text))
    apart = CAMEL.sub(lambda match: re.sub("([A-Z])", r" \1", match[0]), plain(_without(text, " ")))
    found = [joined, apart]
    if SYMBOL.search(joined):
        tables = [LEET | str.maketrans(dict.fromkeys("1!|", one)) for one in "il"]
        found += [SYMBOL.sub(partial(_spelt, table), joined) for table in tables]
    if re.search(r"(.)\1\1", joined, re.IGNORECASE):
        found += [re.sub(r"(.)\1{2,}", kept, joined, flags=re.IGNORECASE) for kept in (r"\1", r"\1\1")]
    return tuple(tuple(WORD.findall(each.casefold())) for each in found)


def _spelt(table: dict[int, str], match: re.Match[str]) -> str:
    """Return the letters that digits and symbols stand for; a number is a number."""
    return match["number"] or match[0].translate(table)


class Vocabulary:
    """Words to look for, with their plurals.

    stems: found within longer words too, but for those of `but`; `across`: also where words are cut anywhere.
    beside: words that are often glued to one that is looked for.
    """

    def __init__(self, listed: str, stems: str = "", beside: str = "", but: str = "", across: bool = False):
        self.words = {form for word in f"{listed} {stems}".split() for form in _forms(word)}
        self.across = across
        self.stems, self.but = tuple(stems.split()), set(but.split())
        self.beside = set(beside.split())
        self._within = lru_cache(maxsize=1 << 16)(self._look_within)  # prompts share most of their words

    @cached_property
    def beginnings(self) -> set[str]:
        """Return what a word of the vocabulary may begin with: all its first letters."""
        return {word[:end] for word in self.words for end in range(1, len(word) + 1)}

    @cached_property
    def jumbled(self) -> set[tuple[str, str, str]]:
        """Return the words of more than four letters as `_jumbled` writes them."""
        return {_jumbled(word) for word in self.words if len(word) > 4}

    @cached_property
    def single(self) -> dict[str, str]:
        """Words that hold no letter twice in a row: found with doubled letters too (chilld)."""
        return {word: word for word in self.words if _single(word) == word}

    def find(self, text: str) -> str | None:
        """Return the first word of the vocabulary that a text holds, or None."""
        for tokens in dict.fromkeys(readings(text)):
            if self.across and (found := self._stem("".join(token for token in tokens if token not in self.but))):
                return found
            for start, token in enumerate(tokens):
                if found := self.at(tokens, start) or self._within(token):
                    return found
        return self._covered(plain(text).casefold())

    def at(self, tokens: Sequence[str], start: int) -> str | None:
        """Return a word that begins with this token, whole or cut into several (c h i l d), or None."""
        whole = ""
        for place in range(start, len(tokens)):
            whole += tokens[place]
            if whole in self.words:
                return whole
            if whole not in self.beginnings:
                return None
        return None

    def _look_within(self, token: str) -> str | None:
        if token in self.but:
            return None
        if found := self._stem(token):
            return found
        if len(token) > 4 and _jumbled(token) in self.jumbled:
            return token
        if (found := self.single.get(_single(token))) and found != token:
            return found
        cuts = range(2, len(token) - 1) if len(token) <= LONGEST else ()
        halves = [pair for cut in cuts for pair in _both(token[:cut], token[cut:])]
        return next((word for other, word in halves if other in self.beside and word in self.words), None)  # nakedkid

    def _stem(self, text: str) -> str | None:
        return next((stem for stem in self.stems if stem in text), None)

    def _covered(self, text: str) -> str | None:
        """Return a word of which other signs cover letters (k*d), or None."""
        for token in re.findall(r"(?<![a-z])[a-z]+(?:[*#%?•°]+[a-z]+)+", text):
            if len(token) > LONGEST:
                continue
            pattern = re.compile(re.sub(r"[^a-z]", "[a-z]", token))
            if found := next((word for word in sorted(self.words) if pattern.fullmatch(word)), None):
                return found
        return None


def _forms(word: str) -> list[str]:
    return [word, f"{word}s", f"{word}z", *([f"{word[:-1]}ies"] if word.endswith("y") else [])]


def _both(first: str, last: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (first, last), (last, first)


def _jumbled(word: str) -> tuple[str, str, str]:
    """Return the first and last letter, and those between sorted: people read on when they are mixed up."""
    return word[0], "".join(sorted(word[1:-1])), word[-1]


def _single(word: str) -> str:
    return re.sub(r"(.)\1+", r"\1", word)
