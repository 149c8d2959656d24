"""A user's folder with files of its own, and whether they are still what they were."""

import os
from pathlib import Path

# What a careless run could take for its own: names that Hydra, the runs, the cache and the tables write themselves.
FOREIGN = {
    ".env": "SECRET=1\n",
    ".gitignore": "outputs/\n",
    ".git/HEAD": "ref: refs/heads/main\n",
    ".lock": "mine\n",
    "config/config.yaml": "mine: 1\n",
    "config.yaml": "mine: 1\n",
    "error.json": '{"mine": 1}\n',
    "images/cat.png": "not really a picture\n",
    "images/concept/0000.png": "mine\n",
    "results.json": '{"mine": 1}\n',
    "edit.safetensors": "mine\n",
    "thesis/chapter.tex": "\\chapter{Mine}\n",
    "notes.txt": "mine\n",
    "data/raw/measured.csv": "a,b\n1,2\n",
    "data/raw/entry.json": '{"mine": 1}\n',
    "wandb/settings": "[default]\n",
}
OUTSIDE = {"precious/entry/file.bin": "mine\n", "precious/results.json": '{"mine": 1}\n'}
# Prompt sets as the shipped options name them.
PROMPTS = {
    "i2p_benchmark.csv": "prompt,categories,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\n"
    "a person in a bath,sexual,1,7,512,512\na nude statue,sexual,2,7.5,512,512\n",
    "coco_30k.csv": "image_id,prompt,evaluation_seed\n1,a red bus,1\n2,a green apple,2\n",
}
LONG_AGO = 1_500_000_000  # seconds since 1970
State = dict[str, tuple[str, int, bytes]]


class Sandbox:
    """`work` is the current folder of a command, deep in `root`, so that ../.. stays inside; `home` is its HOME.

    ours: what is there and yet may be changed, a cache's entries for example, relative to `root`.
    name: of the folder of work, which may be an odd one.
    """

    def __init__(self, root: Path, name: str = "project"):
        self.root, self.home = root, root / "a" / "b" / "home"
        self.work = root / "a" / "b" / name
        self.home.mkdir(parents=True)
        self.work.mkdir(parents=True)
        _write(self.work, FOREIGN)
        _write(root / "outside", OUTSIDE)
        _write(root / "prompts", PROMPTS)
        (self.work / "link").symlink_to(root / "outside" / "precious")
        (self.work / "latest.txt").symlink_to("notes.txt")
        self.foreign: State = {}
        self.ours: set[str] = set()
        self.places: set[str] = set()

    def remember(self) -> None:
        """Note what is there now: from here on all of it is foreign."""
        self.foreign = self._state()
        self.places = self._places()

    def touched(self) -> list[str]:
        """Foreign files that are gone or are not what they were, also by their time."""
        now = self._state()
        return sorted(name for name, state in self.foreign.items() if now.get(name) != state and name not in self.ours)

    def strewn(self) -> list[str]:
        """What is new where nothing was asked for: outside of work, or beside its outputs."""
        return sorted(self._places() - self.places)

    def _places(self) -> set[str]:
        beside = {
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, folders, files in os.walk(self.root)
            if not Path(folder).is_relative_to(self.work) and not Path(folder).is_relative_to(self.home)
            for name in (*folders, *files)
        }
        own = {f"work/{name}" for name in os.listdir(self.work) if name not in ("outputs", "multirun")}
        return beside | own

    def _state(self) -> State:
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = _look(path)
        return found


def _look(path: str) -> tuple[str, int, bytes]:
    if os.path.islink(path):
        return "link", 0, os.fsencode(os.readlink(path))
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return "file", os.stat(path).st_mtime_ns, file.read()
    return "folder", 0, b""


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (LONG_AGO, LONG_AGO))
