"""Tables of text from CSV and parquet files, each record with its place in the file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

SHOWN = 5  # faults of a file that are listed
BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


@dataclass(frozen=True)
class Record:
    """One record: its number from 0, where it stands ("line 7", counted in the file from 1), its cells by column."""

    number: int
    where: str
    cells: dict[str, str]


@dataclass
class Faults:
    """What is wrong with a file, place by place: all of it is told at once, and nothing of such a file is used."""

    file: str
    found: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        self.found.append(f"{where}: {reason}")

    def refuse(self) -> None:
        """UserError with the first few faults and the number of all, if there are any."""
        if self.found:
            rest = len(self.found) - SHOWN
            listed = [*self.found[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
            rows = "row is" if len(self.found) == 1 else "rows are"
            raise UserError(f"{len(self.found)} {rows} malformed in '{self.file}':\n  " + "\n  ".join(listed))


def read(file: Path, encoding: str | None = None) -> tuple[list[str], list[Record]]:
    """Column names and records of a file, by its suffix; every cell as text, nothing stripped, blank lines left out.

    encoding: of a CSV file; None: UTF-8 with or without a byte order mark, or UTF-16 with one.
    UserError: not readable as this format; no header; a name twice in the header; records of another length.
    """
    header, records = _parquet(file) if file.suffix == ".parquet" else _csv(file, encoding)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"'{file}' names the column '{twice[0]}' twice in its header: rename one of them")
    return header, records


def _csv(file: Path, encoding: str | None) -> tuple[list[str], list[Record]]:
    """By RFC 4180. A record may span several lines of the file; its place is the first of them."""
    reader = csv.reader(io.StringIO(decode(file, encoding), newline=""), strict=True)
    faults, records, header, first = Faults(str(file)), [], None, 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:  # what follows cannot be told apart any more
            faults.add(f"line {first}", f"{error} (is a quote missing?)")
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


def decode(file: Path, encoding: str | None) -> str:
    """The text of a file without its byte order mark. UserError names the line of the first byte that is no text."""
    data = file.read_bytes()
    encoding = encoding or ("utf-16" if data.startswith(BOMS) else "utf-8")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise UserError(f"there is no encoding '{encoding}': take utf-8, utf-16, latin-1 or cp1252") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"'{file}', line {line}: byte {data[error.start]:#04x} is not {encoding}: save the file as UTF-8, "
            "or name its encoding (prompts.encoding=latin-1)"
        ) from None


def _parquet(file: Path) -> tuple[list[str], list[Record]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is no readable parquet file: fetch it again") from error
    rows = table.to_pylist()
    return table.column_names, [
        Record(number, f"row {number + 1}", {name: _text(value) for name, value in row.items()})
        for number, row in enumerate(rows)
    ]


def _text(value: object) -> str:
    """As a CSV file would say it; whole floats (a column of integers with gaps) as integers."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
