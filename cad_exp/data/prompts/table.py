"""Tables of text from CSV and parquet files, each record with its place in the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from cad_exp.data.prompts import parquet
from cad_exp.data.prompts.decoding import PARQUET, content, decode
from cad_exp.data.prompts.parquet import Cell
from cad_exp.utils.errors import UserError

SHOWN = 5  # faults of a file that are listed
SEPARATORS = ",\t;"


@dataclass(frozen=True)
class Record:
    """One record: its number from 0, where it stands ("line 7", counted in the file from 1), its cells by column."""

    number: int
    where: str
    cells: dict[str, Cell]


@dataclass
class Faults:
    """What is wrong with a file, place by place: all of it is told at once, and nothing of such a file is used."""

    file: str
    found: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        """Note a fault and its place."""
        self.found.append(f"{where}: {reason}")

    def refuse(self) -> None:
        """UserError with the first few faults and the number of all, if there are any."""
        if self.found:
            rest = len(self.found) - SHOWN
            listed = [*self.found[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
            rows = "row is" if len(self.found) == 1 else "rows are"
            raise UserError(f"{len(self.found)} {rows} malformed in '{self.file}':\n  " + "\n  ".join(listed))


def read(
    file: Path,
    encoding: str | None = None,
    used: Collection[str] = (),
    lists: Collection[str] = (),
    group: str = "prompts",
) -> tuple[list[str], list[Record]]:
    """Column names and records of a file, by its content; every cell as text, nothing stripped, blank lines left out.

    encoding: of a CSV file; None: by its mark, else UTF-8 or UTF-16. used: the columns that a parquet file is read for,
    of which `lists` may hold lists. group: of the config that names the file, for what is said.
    UserError: not readable; no header; a name twice in the header; records of another length.
    """
    data = content(file)
    if data.startswith(PARQUET) or file.name.lower().removesuffix(".gz").endswith((".parquet", ".pq")):
        header, rows = parquet.read(data, file, used, lists)
        records = [Record(number, f"row {number + 1}", cells) for number, cells in enumerate(rows)]
    else:
        header, records = _csv(decode(data, file, encoding, group), file)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"'{file}' names the column '{twice[0]}' twice in its header: rename one of them")
    return header, records


def _csv(text: str, file: Path) -> tuple[list[str], list[Record]]:
    """By RFC 4180. A record may span several lines of the file; its place is the first of them."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
    faults, first = Faults(str(file)), 1
    header: list[str] | None = None
    records: list[Record] = []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:  # what follows cannot be told apart any more
            long = f"a cell of more than {csv.field_size_limit():,} characters"
            faults.add(f"line {first}", f"{long if 'field limit' in str(error) else error} (is a quote missing?)")
            break
        where, first = f"line {first}", reader.line_num + 1
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            faults.add(where, f"{len(cells)} cells, but the header has {len(header)}")
        else:
            records.append(Record(len(records), where, dict(zip(header, cells, strict=True))))
    faults.refuse()
    if header is None:
        raise UserError(f"'{file}' is empty: its first line must name its columns")
    return header, records


def _separator(text: str) -> str:
    """Find what parts the cells: a comma, else a tab, or a semicolon as in half of Europe's spreadsheets."""
    header = text.lstrip().partition("\n")[0]
    return next((each for each in SEPARATORS if each in header), ",")
