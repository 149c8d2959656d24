"""Reads an offline Weights & Biases file back: a header of 7 bytes, then records in the log format of LevelDB."""

import json
import struct
import time
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7


def records(folder: Path, patience: float = 30) -> list:
    """All records of the only offline run below `folder`; W&B's own process may still be writing the last of them."""
    end = time.monotonic() + patience
    while True:
        [path] = Path(folder).glob("wandb/offline-run-*/run-*.wandb")
        found = parse(path.read_bytes())
        if of_kind(found, "exit"):
            return found
        assert time.monotonic() < end, "the run was not finished"
        time.sleep(0.1)


def parse(data: bytes) -> list:
    position, piece, found = HEADER, b"", []
    while position + HEADER <= len(data):
        room = BLOCK - position % BLOCK
        if room < HEADER:  # padding at a block's end
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        piece += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4) and position <= len(data):  # a whole record, or its last piece
            found.append(wandb_internal_pb2.Record.FromString(piece))
            piece = b""
    return found


def values(items) -> dict:
    """Nested dict of the parsed JSON of config, history or summary items."""
    content: dict = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(item.value_json)
    return content


def of_kind(found: list, kind: str) -> list:
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]
