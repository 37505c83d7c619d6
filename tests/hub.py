"""A small server for the part of the Hugging Face Hub's protocol that its client needs."""

import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Answer = Callable[["Handler"], bool]  # returns True if it has answered the request


class Hub:
    """A server of `repositories`: directories by (kind, id), where kind is "model" or "dataset".

    `faults` maps a pattern of paths to a function that may answer a request instead of the Hub;
    `requests` records the method and path of every request.
    """

    def __init__(self, repositories: dict[tuple[str, str], tuple[str, Path]]) -> None:
        self.repositories = repositories
        self.faults: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.hub = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.form = parse_qs(self.rfile.read(length).decode())
        self._answer()

    def _answer(self) -> None:
        hub = self.server.hub
        path = self.path.partition("?")[0]
        hub.requests.append((self.command, path))
        if self.headers.get("Range"):
            hub.ranges.append(self.headers["Range"])
        for pattern, fault in hub.faults.items():
            if re.search(pattern, path) and fault(self):
                return
        if tree := re.fullmatch(r"/api/(dataset|model)s/(.+)/tree/([^/]+)(/.*)?", path):
            self._tree(*tree.groups())
        elif paths := re.fullmatch(r"/api/(dataset|model)s/(.+)/paths-info/([^/]+)", path):
            self._paths(*paths.groups())
        elif info := re.fullmatch(
            r"/api/(dataset|model)s/([^/]+(?:/[^/]+)?)(?:/revision/(.+))?", path
        ):
            self._info(*info.groups())
        elif file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, revision, rest = file.groups()
            self._file("dataset" if kind else "model", name, revision, rest)
        else:
            self.say(200, b"ok")

    def say(self, status: int, body: bytes = b"", **headers: str) -> bool:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def _json(self, content: Any) -> None:
        self.say(200, json.dumps(content).encode(), Content_Type="application/json")

    def fail(self, status: int, code: str, message: str, **headers: str) -> bool:
        body = json.dumps({"error": message}).encode()
        return self.say(status, body, X_Error_Code=code, X_Error_Message=message, **headers)

    def _repository(self, kind: str, name: str, revision: str) -> Path | None:
        known, directory = self.server.hub.repositories.get((kind, name), (None, None))
        if directory is None:
            self.fail(404, "RepoNotFound", "Repository not found")
        elif revision not in (known, "main"):
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return directory

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        known, _ = self.server.hub.repositories.get((kind, name), (None, None))
        if self._repository(kind, name, known if revision in (None, "main") else revision):
            self._json({"id": name, "sha": known})

    def _tree(self, kind: str, name: str, revision: str, below: str | None) -> None:
        if not (directory := self._repository(kind, name, revision)):
            return
        if below:
            self.fail(404, "EntryNotFound", "No folders here")
        else:
            self._json([_describe(path) for path in sorted(directory.iterdir())])

    def _paths(self, kind: str, name: str, revision: str) -> None:
        if directory := self._repository(kind, name, revision):
            paths = [directory / path for path in self.form["paths"]]
            self._json([_describe(path) for path in paths if path.is_file()])

    def _file(self, kind: str, name: str, revision: str, rest: str) -> None:
        directory = self._repository(kind, name, revision)
        if not directory:
            return
        path = directory / rest
        if not path.is_file():
            self.fail(404, "EntryNotFound", "Entry not found")
            return
        body, facts = path.read_bytes(), _describe(path)
        headers = {
            "ETag": f'"{facts["lfs"]["oid"] if "lfs" in facts else facts["oid"]}"',
            "X_Repo_Commit": self.server.hub.repositories[kind, name][0],
            "Accept_Ranges": "bytes",
        }
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.say(206, body[start:], **headers)
        else:
            self.say(200, body, **headers)


def _describe(path: Path) -> dict:
    content = path.read_bytes()
    facts = {
        "type": "file",
        "path": path.name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if path.suffix in (".parquet", ".safetensors"):
        sha256 = hashlib.sha256(content).hexdigest()
        facts["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return facts


def status(code: int, message: str = "", **headers: str) -> Answer:
    """Always answer with this status."""
    return lambda handler: handler.fail(code, "", message, **headers)


def first(times: int, answer: Answer) -> Answer:
    """Give `answer` to the first requests of each path, and then the true answer."""
    seen: Counter[str] = Counter()

    def fault(handler: Handler) -> bool:
        seen[handler.path] += 1
        return seen[handler.path] <= times and answer(handler)

    return fault


def reset_after(directory: Path, size: int) -> Answer:
    """Break off the first download of a file after `size` bytes."""
    broken: set[str] = set()

    def fault(handler: Handler) -> bool:
        if handler.command != "GET" or handler.path in broken:
            return False
        broken.add(handler.path)
        body = (directory / handler.path.rpartition("/")[2]).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:size])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        return True

    return fault


def corrupt(handler: Handler) -> bool:
    """Send a body of the right length with other bytes."""
    if handler.command != "GET":
        return False
    kept = handler.wfile.write
    handler.wfile.write = lambda body: kept(bytes(len(body)) if len(body) > 600 else body)
    return False
