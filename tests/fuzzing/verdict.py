"""What is wrong with the answer to a command: a few classes, each a property that every answer must have."""

import re
import shlex
from dataclasses import dataclass

from tests.fuzzing.command import Answer

CODES = (0, 1, 2, 130, 143)
# Words of libraries in what a person is told.
PARSER = re.compile(
    r"antlr|viable alternative|mismatched input|extraneous input|token recognition|omegaconf|full_key:|object_type=|"
    r"ConfigCompositionException|OverrideParseException|HydraException|GrammarParseError|UnsupportedInterpolation|"
    r"Interpolation(Key|Resolution)Error|MissingConfigException|Config(Key|Attribute|Type|Value)Error|while (scanning|"
    r"parsing|constructing)|ScannerError|ParserError|ConstructorError|\bline \d+:\d+|LexerNoViable|<unicode string>|"
    r"reference_type|Error (merging|instantiating|locating|executing job)|HYDRA_FULL_ERROR|in '.*', line \d+, column",
    re.IGNORECASE,
)
PYTHON = re.compile(r"\b[A-Z][A-Za-z]*(Error|Exception)\b|Errno|\bNoneType\b|object is not|argument of type|subscript")
COMMAND = re.compile(r"(?<![`'\w])python -m cad_exp.*")

# A class fails the fuzz if it is here. `python` (a class of Python's in a sentence) is only told.
STRICT = ("traceback", "unexpected", "parser", "code", "silent", "sentences", "terminal", "foreign", "strewn")
STRICT += ("usage", "late", "hang", "ran", "accepted", "refused", "repeat")


@dataclass(frozen=True)
class Finding:
    """what: its class. shown: the line that proves it."""

    what: str
    shown: str


def judge(answer: Answer, given: str) -> list[Finding]:
    """The findings that the answer alone shows. given: the arguments, whose own words are no finding."""
    found, text = [], answer.err
    if answer.late:
        return [Finding("hang", "did not end in time")]
    if answer.fault or "Traceback (most recent call last)" in answer.out + text:
        last = [line for line in (answer.fault or answer.out + text).splitlines() if line.strip()]
        found.append(Finding("traceback", last[-1] if last else ""))
    elif answer.code not in CODES:
        found.append(Finding("code", f"exit {answer.code}: {text[:200]}"))
    for line in (answer.out + text).splitlines():
        if "unexpected " in line and "unexpected " not in given:
            found.append(Finding("unexpected", line))
    for line in text.splitlines():
        if PARSER.search(_without(line, given)):
            found.append(Finding("parser", line))
        elif PYTHON.search(_without(line, given)) and "unexpected " not in line:
            found.append(Finding("python", line))
    if not answer.fault:
        found += _sentences(answer)
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", answer.err + answer.out):
        found.append(Finding("terminal", repr(re.search(r".{0,60}[\x00-\x08\x0b-\x1f\x7f].{0,20}", text + answer.out))))
    return list({finding.what: finding for finding in reversed(found)}.values())


def _without(line: str, given: str) -> str:
    for word in sorted(given.split(), key=len, reverse=True):
        if len(word) > 3:
            line = line.replace(word, "")
    return line


def _sentences(answer: Answer) -> list[Finding]:
    """One sentence for a failure, nothing else on stderr; a list may follow it, and jobs of a sweep may repeat it."""
    lines = [line for line in answer.err.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error|[\w .-]+: error): ", line)]
    stray = [
        line
        for line in lines
        if line not in errors and not line.startswith((" ", "usage: ", "without them: ", "warning: "))
    ]
    several = "jobs failed" in answer.err
    if "[overrides ...]" in answer.err:
        return [Finding("usage", f"Hydra's own usage, {len(lines)} lines: {lines[-1]}")]
    if answer.code in (1, 2, 130, 143) and not errors:
        return [Finding("silent", f"exit {answer.code} without an error: {lines[:1]}")]
    if (len(set(errors)) > 1 and not several) or (stray and "left out" not in stray[0]):
        return [Finding("sentences", " / ".join(errors[1:2] + stray[:2]))]
    return []


def printed_commands(answer: Answer) -> list[list[str]]:
    """The commands that the answer prints for pasting, as a shell takes them apart; [] in place of a bad one."""
    found = []
    for line in (answer.out + "\n" + answer.err).splitlines():
        match = COMMAND.search(line)
        if not match or "..." in match[0] or "--help" in match[0]:
            continue
        command = match[0].strip()
        if line[: match.start()].endswith("("):
            command = command.rpartition(")")[0]
        elif not line[: match.start()].isspace():
            continue  # in the middle of a sentence
        try:
            found.append(shlex.split(command))
        except ValueError:
            found.append([])
    return found
