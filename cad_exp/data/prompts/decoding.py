"""The text of a file, whatever it was saved as: plain or gzip, UTF-8, UTF-16, or the encoding that the user names."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

from cad_exp.utils.errors import UserError

MOST = 2**30  # bytes of a prompt file, unpacked
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
MARKS = {  # longest first: the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
FOREIGN = {  # what a file is that is no table, by its first bytes
    b"PK": "a zip archive or a spreadsheet: save its table as CSV",
    b"BZh": "packed with bzip2: unpack it",
    b"\xfd7zXZ": "packed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstandard: unpack it",
    b"version https://git-lfs": "only a pointer of Git LFS: fetch the file itself",
    b"<!DOCTYPE": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"%PDF": "a PDF: save its table as CSV",
}


def content(file: Path) -> bytes:
    """Return the bytes of a file, unpacked if gzip packed it.

    UserError if it cannot be read, is too large, or no table.
    """
    try:
        if file.stat().st_size > MOST:
            raise UserError(f"'{file}' is larger than {MOST >> 30} GiB: keep only the rows that you need")
        data = file.read_bytes()
        if data.startswith(GZIP):
            with gzip.open(file) as packed:
                data = packed.read(MOST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"'{file}' is a damaged gzip file: fetch it again") from error
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror or error}): check the file") from error
    if len(data) > MOST:
        raise UserError(f"'{file}' is larger than {MOST >> 30} GiB when unpacked: keep only the rows that you need")
    for start, what in FOREIGN.items():
        if data.startswith(start):
            raise UserError(f"'{file}' is {what}")
    return data


def decode(data: bytes, file: Path, encoding: str | None, group: str = "prompts") -> str:
    """Return the text without its byte order mark. UserError names the line of the first byte that is no text.

    encoding: None takes what the mark says, else UTF-16 where every other byte is zero, else UTF-8.
    """
    encoding = _known(encoding, group) if encoding is not None else _guessed(data)
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise UserError(
            f"'{file}', line {line}: byte {data[error.start]:#04x} is not {encoding}: save the file as UTF-8, "
            f"or name its encoding ({group}.encoding=cp1252, latin-1, utf-16, ...)"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"'{file}', line {line}: a zero byte, which no text holds: save the file as UTF-8")
    return text


def _known(encoding: str, group: str) -> str:
    try:
        codecs.lookup(encoding)
        "a".encode(encoding)  # rot13 and base64 are codecs too, but none of text
    except (LookupError, TypeError, ValueError):
        raise UserError(
            f"{group}.encoding: there is no encoding '{encoding}': take utf-8, utf-16, latin-1 or cp1252"
        ) from None
    return encoding


def _guessed(data: bytes) -> str:
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding
    start = data[:4096]
    even, odd = (start[side::2].count(0) / max(1, len(start) // 2) for side in (0, 1))
    if max(even, odd) > 0.3 and min(even, odd) < 0.1:
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"
