"""Ages below eighteen in a prompt: in digits and in words, before or after what they are the age of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cad_exp.config.safety.reading import plain, readings

ADULT = 18  # years
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
ONES += ["seventeen", "eighteen", "nineteen"]
NTH = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth".split()
NTH += "fourteenth fifteenth sixteenth seventeenth".split()
TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SMALL = {word: n for n, word in [*enumerate(ONES), *enumerate(NTH)]}
SMALL |= {"xi": 11, "xii": 12, "xiii": 13, "xiv": 14, "xv": 15, "xvi": 16, "xvii": 17, "fourty": 40, "fiveteen": 15}
SPELT = "|".join(sorted(ONES, key=len, reverse=True))
NUMBER = rf"(?<!\d)\d+|(?:{'|'.join(TENS)})(?:{'|'.join(ONES[1:10])})?|{SPELT}"
YEARS, YOUNG = r"(?:years?|yrs?|y)", r"(?:old|ofage|young)"
# Read without any space, so that it does not matter where there is one: 15yearold, fif teen years old.
TOGETHER = [
    re.compile(rf"(?P<age>{NUMBER})(?:years?|yrs?){YOUNG}"),
    re.compile(rf"(?P<age>(?<!\d)\d+)y{YOUNG}"),
    re.compile(rf"(?P<infant>{NUMBER})(?:months?|weeks?|days?|hours?|mo|wks?){YOUNG}"),
]
WHO = r"(?:she|he|who|someone|woman|man|lady|female|male|person|wife|student|pupil)"
NEARLY = r"(?:(?:of|is|s|m|am|was|at|to|the|age|aged|about|around|just|only|like|between|from|turned|now) )*"
# Read word by word.
APART = [
    re.compile(rf"\b(?P<age>\d+) (?:{YEARS} (?:o|old)|yo|y o|yos|yr|yrs|y)\b"),
    re.compile(rf"\b(?P<age>\d+) (?:to|or|and) \d+ {YEARS}\b"),
    re.compile(r"\b(?P<age>\d+) (?:years|yrs)\b(?! (?:ago|later))"),
    re.compile(r"\bbetween (?P<age>\d+) and \d+\b"),
    re.compile(r"\b(?P<teen>\d+) (?:and )?(?:female|male|woman|lady|naked|nude)\b"),
    re.compile(r"\b(?:naked|nude|female) (?P<teen>\d+)\b"),
    re.compile(r"\b(?P<age>\d+) (?:year|yr)s? (?:girl|boy|woman|man|female|male|person|lady|student|body|model)\b"),
    re.compile(r"\b(?P<age>\d+) (?:st |nd |rd |th )?(?:birthday|summers|winters|springs|grade)\b"),
    re.compile(r"\b(?P<age>\d+) ?(?:ans|anos|anni|jahre|歳|才|岁|歲|세)"),
    re.compile(rf"\b(?:age|ages|aged|ageing|aging) (?:[^\W\d]+ ){{0,1}}{NEARLY}(?P<age>\d+)\b"),
    re.compile(rf"\b{WHO} {NEARLY}(?P<age>\d+)\b"),
    re.compile(rf"\b(?:i am|i m|im|turned|looks?|looking|sweet) {NEARLY}(?P<age>\d+)\b"),
    re.compile(r"\b(?:under|below|younger than|less than|u) (?:the )?(?:age )?(?:of )?(?P<under>\d+)\b"),
    re.compile(r"\b(?:almost|nearly|barely|not|not yet|turning|approaching|until|til|till) (?P<until>\d+)\b"),
    re.compile(r"\bbarely (?:an )?(?:adult|legal)()\b"),
]
LIMITS = {
    "age": ADULT - 1,
    "until": ADULT,
    "under": 21,
    "infant": 10**6,
    "teen": ADULT - 1,
}  # up to which a number tells of a child
ANY = re.compile(rf"{NUMBER}|x[iv]+|barely|{'|'.join(NTH[1:4])}")  # without one of these there is no age
LETTERED = re.compile(r"\b(1?\d)/?[fm]\b")  # 15f


def find(text: str) -> str | None:
    """Return the words that give an age below eighteen, as they are read; None if there are none."""
    text = re.sub(r"[<≤]", " under ", text)
    text = re.sub(r"(?<=\d)\s*[-\u2010-\u2015~/]\s*(?=\d)", " to ", text)
    lettered = LETTERED.search(plain(text).casefold())
    if lettered and int(lettered[1]) < ADULT:
        return lettered[0]
    for tokens in dict.fromkeys(readings(text)[:2]):
        if not ANY.search("".join(tokens)):
            continue
        spaced = " ".join(_digits(tokens))
        for pattern, where in [*((p, "".join(tokens)) for p in TOGETHER), *((p, spaced) for p in APART)]:
            for match in pattern.finditer(where):
                if _tells(match):
                    return match[0].strip()
    return None


def _tells(match: re.Match[str]) -> bool:
    """Return whether the number that a pattern found is that of a child."""
    for name, value in match.groupdict().items():
        if value is not None:
            return _value(value) <= LIMITS[name] and not (name == "teen" and _value(value) < 10)  # "3 naked women"
    return True


def _value(number: str) -> int:
    if number.isdigit():
        return int(number[-9:]) if len(number) < 10 or not number[:-9].strip("0") else 10**9
    tens = next((word for word in TENS if number.startswith(word)), "")
    return TENS.get(tens, 0) + SMALL.get(number.removeprefix(tens), 0)


def _digits(tokens: Sequence[str]) -> list[str]:
    """Write number words as digits: twenty five, twentyfive and 25 are one number; fifteenyo is two words."""
    found: list[str] = []
    for token in tokens:
        number, rest = _split(token)
        if number is None:
            found.append(token)
        elif found and found[-1] in map(str, TENS.values()) and 0 < number < 10 and not token.isdigit():
            found[-1] = str(int(found[-1]) + number)
        else:
            found.append(str(number))
        if rest:
            found.append(rest)
    return found


@lru_cache(maxsize=1 << 14)
def _split(token: str) -> tuple[int | None, str]:
    """Split a token into the number at its start and what is left of it: a unit of age, or nothing."""
    if token.isdigit():
        return _value(token), ""
    if token in SMALL:
        return SMALL[token], ""
    match = re.fullmatch(rf"({NUMBER})(year|years|yr|yrs|yo|yos|ish|something|)", token)
    return (_value(match[1]), match[2]) if match else (None, "")
