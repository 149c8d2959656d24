"""A CLIP tokenizer for the mini world: every word of the world is one token, anything else falls to characters."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer

MAX_LENGTH = 20  # the longest caption has 16 words
START, END = "<|startoftext|>", "<|endoftext|>"
# Words that prompts of the experiments use although no caption holds them.
EXTRA_WORDS = (
    "a an the of in on with and without photo painting picture image style by wearing clothes clothed nude".split()
)


def byte_symbols() -> list[str]:
    """Return the 256 printable symbols by which CLIP's byte-level BPE writes bytes (GPT-2's table)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def merges_of(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return BPE merges that build every word from its first letter to its last.

    BPE applies the merge of lowest rank first, wherever it fits, so a merge learned for one word can derail another
    one. The words are therefore played through, each under all merges so far, and a word that ends in
    several pieces adds the merges of just these pieces; this is repeated until nothing changes.
    """
    merges: dict[tuple[str, str], int] = {}
    words = sorted(set(words), key=lambda w: (len(w), w))
    for _ in range(100):
        before = len(merges)
        for word in words:
            while len(pieces := split(word, merges)) > 1:
                merges[(pieces[0], pieces[1])] = len(merges)
        if len(merges) == before and all(len(split(word, merges)) == 1 for word in words):
            return list(merges)
    raise RuntimeError("the words of the world do not fit into one list of merges")


def split(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """Split one word into its pieces under byte-pair merges, as CLIP's tokenizer forms them."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pair = min(zip(pieces, pieces[1:], strict=False), key=lambda p: merges.get(p, 1 << 30))
        if pair not in merges:
            break
        joined, i = [], 0
        while i < len(pieces):
            if tuple(pieces[i : i + 2]) == pair:
                joined.append("".join(pair))
                i += 2
            else:
                joined.append(pieces[i])
                i += 1
        pieces = joined
    return pieces


def build_tokenizer(captions: Iterable[str], folder: str | Path) -> CLIPTokenizer:
    """Write vocab.json and merges.txt for the words of `captions` into `folder`, and load them."""
    words = {w for c in captions for w in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", c.lower())} | set(EXTRA_WORDS)
    merges = merges_of(w for w in words if w.isascii())
    symbols = byte_symbols()
    vocab = dict.fromkeys([*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), START, END])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "vocab.json", json.dumps({token: i for i, token in enumerate(vocab)}, ensure_ascii=False))
    write(folder / "merges.txt", "#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
