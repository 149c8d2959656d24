"""A hub on this machine: of the Hugging Face hub's API what an upload of a folder and a download of a file need.

Large files go by LFS, all else within the commit, as on the hub. A repository is what its commits put into it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

WRITER, READER = "hf_writer", "hf_reader"  # tokens: the one may write, the other may not
COMMIT = "0123456789" * 4


class Hub(ThreadingHTTPServer):
    """repositories: id -> names of files -> contents. private: the ids of those that are not public."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.uploaded: dict[str, bytes] = {}  # by LFS, by the hash of the content

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield hub
        hub.shutdown()


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (WRITER, READER):
            return self.say(401, {"error": "Invalid username or password."})
        if self.path == "/api/validate-yaml":
            return self.check(json.loads(content)["content"])
        if token == READER:
            return self.say(403, {"error": "You don't have the rights to create a model under this namespace"})
        if self.path == "/api/repos/create":
            return self.create(json.loads(content))
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            files = [
                {"path": each["path"], "uploadMode": self.mode(each["path"]), "shouldIgnore": False}
                for each in json.loads(content)["files"]
            ]
            return self.say(200 if found[1] in self.server.repositories else 404, {"files": files})
        if re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}}
                for each in json.loads(content)["objects"]
            ]
            return self.say(200, {"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            return self.commit(found[1], [json.loads(line) for line in content.splitlines()])
        return self.say(404, {"error": f"no answer to {self.path}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.removeprefix("/lfs/")
        self.server.uploaded[name] = content
        self.say(200 if hashlib.sha256(content).hexdigest() == name else 400, {})

    def do_GET(self) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        content = self.server.repositories.get(found[1], {}).get(found[2]) if found else None
        if content is None:
            code = "EntryNotFound" if found and found[1] in self.server.repositories else "RepoNotFound"
            return self.say(404, {"error": "not found"}, {"X-Error-Code": code})
        tags = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self.answer(200, content, tags)

    do_HEAD = do_GET

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self.say(
                409, {"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}
            )
        self.server.repositories[name] = {}
        if asked.get("visibility") == "private":
            self.server.private.add(name)
        return self.say(200, {"url": f"{self.server.address}/{name}"})

    def check(self, card: str) -> None:
        """The hub reads the card's first block as YAML."""
        known = yaml.safe_load(card.split("---")[1])
        self.say(200 if isinstance(known, dict) else 400, {"errors": [], "warnings": []})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.repositories[name]
        for value in (line["value"] for line in lines if line["key"] == "file"):
            files[value["path"]] = base64.b64decode(value["content"])
        for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
            files[value["path"]] = self.server.uploaded[value["oid"]]
        self.say(200, {"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    @staticmethod
    def mode(path: str) -> str:
        return "lfs" if path.endswith(".safetensors") else "regular"

    def say(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
