"""A table as Markdown, LaTeX (booktabs) and CSV; each file written atomically."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from cad_exp.reporting.tables.collect import Found, Run, changes
from cad_exp.reporting.tables.places import place_of
from cad_exp.reporting.tables.plan import Job, Plan
from cad_exp.reporting.tables.table import Entry, Table
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import atomic, made
from cad_exp.utils.text import cell, inert, line, safe
from cad_exp.utils.text import markdown as shown_as_it_is

_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "·": r"$\cdot$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "×": r"$\times$",
    "−": "$-$",
    "—": "---",
    "…": r"\ldots{}",
    "°": r"$^\circ$",
    "²": "$^2$",
    "³": "$^3$",
    "±": r"$\pm$",
    "÷": r"$\div$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "←": r"$\leftarrow$",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "\u00a0": "~",
    "\u202f": r"\,",
    "µ": r"$\mu$",  # the sign of micro; the letter is another character
}
_GREEK = "αalpha βbeta γgamma δdelta εvarepsilon ζzeta ηeta θtheta ιiota κkappa λlambda μmu νnu ξxi πpi ρrho σsigma "
_GREEK += "τtau υupsilon φvarphi χchi ψpsi ωomega ΓGamma ΔDelta ΘTheta ΛLambda ΞXi ΠPi ΣSigma ΦPhi ΨPsi ΩOmega"
_LATEX |= {word[0]: f"$\\{word[1:]}$" for word in _GREEK.split()}
_NUMBER = re.compile(r"(?<![\w.-])-(?=[\d.])")  # a hyphen that is a minus
MADE = "## How the numbers were made"  # a heading of every page
KINDS = (".md", ".html", ".tex", ".csv", ".png")
SINGLE = 10  # commands of single runs on a page
MARKDOWN_MARKS = ("{}", "**{}**", "<u>{}</u>")
LATEX_MARKS = ("{}", "\\textbf{{{}}}", "\\underline{{{}}}")


def markdown_table(heads: list[str], rows: list[list[str]], right: int = 0) -> str:
    """Return a Markdown table; the last `right` columns are aligned to the right. Bars in cells are escaped."""
    rule = ["---"] * (len(heads) - right) + ["---:"] * right
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (heads, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (clean[0], rule, *clean[1:]))


def markdown(plan: Plan, table: Table, made: list[str], found: Found) -> str:
    """Return the whole page: title, question, table, notes, how the numbers were made, what is missing."""
    study = plan.study
    parts = [f"# {study.title}", study.question, *_laid(table)]
    for title, changed in table.changes.items():
        parts += [f"## {title}", *_laid(changed)]
    parts += [MADE, "\n".join(f"- {inert(each)}" for each in made)]
    if table.missing:
        parts += ["## Missing", _missing(plan, table, found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _laid(table: Table) -> list[str]:
    """Return the table and its notes in Markdown."""
    heads = [*table.heads, *(f"{c.group}: {c.head}" if c.group else c.head for c in table.columns)]
    rows = [
        [*map(shown_as_it_is, row.labels), *_cells(row.cells, table.join, str, MARKDOWN_MARKS)] for row in table.rows
    ]
    notes = "\n".join(f"{note}  " for note in table.notes).rstrip()
    return [markdown_table(heads, rows, right=len(table.columns)), notes]


def _missing(plan: Plan, table: Table, found: Found) -> str:
    """Return the command that makes all missing runs, and those of single ones, as long as they can be read."""
    lines = [
        f"{len(table.missing)} of {len(plan.jobs)} runs. All of them:",
        "",
        f"    {plan.sweep}",
        "",
        "One by one:" if len(table.missing) <= SINGLE else f"One by one, the first {SINGLE}:",
        "",
    ]
    for job in table.missing[:SINGLE]:
        started = found.unfinished.get(job.hash)
        lines.append(f"    {plan.command(job)}" + (f"  # did not finish: {started.folder}" if started else ""))
    return "\n".join(lines)


def latex(plan: Plan, table: Table, made: list[str]) -> str:
    """Return a floating table for a paper, with booktabs. What the page says besides stands in comments."""
    comments = [f"python -m cad_exp tables experiment={plan.name}: needs \\usepackage{{booktabs}}", *made]
    if table.missing:
        comments.append(f"{len(table.missing)} runs are missing: {plan.sweep}")
    lines = [f"% {line}" for comment in comments for line in comment.splitlines()]
    said = [part for part in (plan.study.title, plan.study.question) if part]
    caption = " ".join(part if part[-1] in ".?!" else f"{part}." for part in said)
    lines += _float(table, caption, plan.name)
    for number, (title, changed) in enumerate(table.changes.items()):
        lines += ["", *_float(changed, f"{title}.", f"{plan.name}-change{number + 1}")]
    return "\n".join(lines) + "\n"


def _float(table: Table, caption: str, name: str) -> list[str]:
    """Return the lines of one floating table."""
    width = len(table.heads)
    lines = [r"\begin{table}", r"\centering", f"\\caption{{{escaped(caption)}}}", f"\\label{{tab:{name}}}"]
    lines += [f"\\begin{{tabular}}{{{'l' * width}{'r' * len(table.columns)}}}", r"\toprule", *_groups(table)]
    lines += [_line([*map(escaped, table.heads), *(escaped(column.head) for column in table.columns)]), r"\midrule"]
    lines += [
        _line([*map(escaped, row.labels), *_cells(row.cells, table.join, escaped, LATEX_MARKS)]) for row in table.rows
    ]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"\\par\\smallskip{{\\footnotesize {escaped(note)}}}" for note in table.notes]
    return [*lines, r"\end{table}"]


def _groups(table: Table) -> list[str]:
    """Return the line of the columns' groups with its rules; nothing without groups."""
    if not any(column.group for column in table.columns):
        return []
    cells, rules, at = [""] * len(table.heads), [], len(table.heads)
    for group, columns in groupby(column.group for column in table.columns):
        size = len(list(columns))
        cells.append(f"\\multicolumn{{{size}}}{{c}}{{{escaped(group)}}}")
        rules += [f"\\cmidrule(lr){{{at + 1}-{at + size}}}"] if group else []
        at += size
    return [_line(cells), " ".join(rules)]


def _line(cells: list[str]) -> str:
    text = " & ".join(cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text  # or the \\ before would take it as its option


def escaped(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(char, char) for char in _NUMBER.sub("−", line(text)))


def _cells(cells: list[list[Entry]], join: str, escape: Callable[[str], str], marks: tuple[str, str, str]) -> list[str]:
    def one(entry: Entry) -> str:
        return marks[entry.mark].format(escape(entry.text)) + escape(entry.tail)

    return [escape(join).join(map(one, cell)) for cell in cells]


def long_form(plan: Plan, table: Table, found: Found) -> str:
    """CSV: one line per job, metric and variant with the exact numbers; missing jobs have empty values."""
    keys = plan.study.keys
    out = io.StringIO()
    names = [*keys, "job", "metric", "variant", "value", "low", "high", "n", *changes({}), "folder", "git", "complete"]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for job in plan.jobs:
        facts = {**dict(zip(keys, place_of(job, keys), strict=True)), "job": " ".join(job.overrides)}
        run = found.runs.get(job.hash)
        lines = _metrics(run) if run else _empty(job, table, found)
        writer.writerows({key: cell(value) for key, value in (facts | each).items()} for each in lines)
    return out.getvalue()


def _metrics(run: Run) -> list[dict[str, Any]]:
    facts = {"folder": run.folder, "git": run.run.get("git"), "complete": True}
    return [
        {
            "metric": name,
            "variant": variant,
            **{key: metric[key] for key in ("value", "low", "high", "n")},
            **changes(metric),
            **facts,
        }
        for (name, variant), metric in run.metrics.items()
    ]


def _empty(job: Job, table: Table, found: Found) -> list[dict[str, Any]]:
    started = found.unfinished.get(job.hash)
    facts = {"folder": started.folder if started else None, "complete": False}
    return [{"metric": metric.metric, "variant": metric.variant, **facts} for metric in table.metrics]


@contextmanager
def folder(path: Path, name: str) -> Iterator[Path]:
    """Yield the folder for a study's files, made if need be; a study that is refused leaves none.

    UserError where there can be none, and where files of these names lie that are no earlier table of cad_exp.
    """
    page, taken = (
        path / f"{name}.md",
        [path / f"{name}{kind}" for kind in KINDS if os.path.lexists(path / f"{name}{kind}")],
    )
    try:
        ours = not taken or MADE in page.read_text(encoding="utf-8", errors="replace")
    except OSError:
        ours = False
    if not ours:
        raise UserError(f"'{taken[0]}' is no table of cad_exp and would be overwritten: give another folder (--to)")
    with ExitStack() as stack:
        try:
            stack.enter_context(made(path))
        except OSError as error:
            raise UserError(f"cannot write into '{path}' ({error.strerror}): give another folder (--to)") from error
        yield path


def save(text: str, path: Path) -> Path:
    """Write a text file, whole or not at all; returns `path`."""
    with atomic(path) as draft:
        draft.write_text(safe(text), encoding="utf-8")
    return path
