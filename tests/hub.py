"""A small server for the part of the Hugging Face Hub's protocol that its client needs."""

import atexit
import base64
import contextlib
import functools
import hashlib
import json
import re
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Answer = Callable[["Handler"], bool]  # returns True if it has answered the request


class Hub:
    """A server of `repositories`: directories by (kind, id), where kind is "model" or "dataset".

    `users` maps a token to who may write with it: to the repositories of that name alone. Those
    that are `private` nobody else reads. `objects` are the large files by their SHA-256, which are
    uploaded before the commit that names them.

    `faults` maps a pattern of paths to a function that may answer a request in the Hub's stead;
    `requests` has the method and path of all that came in.
    """

    def __init__(self, repositories: dict[tuple[str, str], tuple[str, Path]]) -> None:
        self.repositories = repositories
        self.faults: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.users: dict[str, str] = {}
        self.private: set[tuple[str, str]] = set()
        self.objects: dict[str, bytes] = {}
        self.commits: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory()
        shutil.rmtree(home())
        home().mkdir()
        self._server = listen()
        self._server.hub = self
        # `close` waits for the next look at whether it should end.
        serve = functools.partial(self._server.serve_forever, poll_interval=0.05)
        threading.Thread(target=serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder.name))


# The ports of earlier servers, which the next ones have if they are free.
PORTS: list[int] = []


def listen() -> ThreadingHTTPServer:
    for port in [*PORTS, 0]:
        with contextlib.suppress(OSError):
            server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
            break
    if port == 0:
        PORTS.append(server.server_port)
    return server


def environment(server: Hub, **changes: str) -> dict[str, str]:
    """The variables of a client of `server`, which has nothing in its cache before a test.

    They are the same again for the next test, so programs start warm (tests/warm.py).
    """
    return {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home()),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    } | changes


@functools.cache
def home() -> Path:
    directory = tempfile.mkdtemp(prefix="hub")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_PUT(self) -> None:
        self.do_POST()

    @property
    def sent(self) -> Any:
        return json.loads(self.body)

    def _answer(self) -> None:
        hub = self.server.hub
        path, _, query = self.path.partition("?")
        hub.requests.append((self.command, path))
        if self.headers.get("Range"):
            hub.ranges.append(self.headers["Range"])
        for pattern, fault in hub.faults.items():
            if re.search(pattern, path) and fault(self):
                return
        if self.command in ("POST", "PUT") and self._write(path):
            return
        if tree := re.fullmatch(r"/api/(dataset|model)s/(.+)/tree/([^/]+)(?:/(.*))?", path):
            self._tree(*tree.groups(), "recursive=true" in query.lower())
        elif paths := re.fullmatch(r"/api/(dataset|model)s/(.+)/paths-info/([^/]+)", path):
            self._paths(*paths.groups())
        elif info := re.fullmatch(
            r"/api/(dataset|model)s/([^/]+(?:/[^/]+)?)(?:/revision/(.+))?", path
        ):
            self._info(*info.groups())
        elif file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, revision, rest = file.groups()
            self._file("dataset" if kind else "model", name, revision, rest)
        elif path.startswith("/api/"):
            self.fail(404, "", "Not an address of this Hub")
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

    def _json(self, content: Any, status: int = 200) -> None:
        self.say(status, json.dumps(content).encode(), Content_Type="application/json")

    def fail(self, status: int, code: str, message: str, **headers: str) -> bool:
        body = json.dumps({"error": message}).encode()
        return self.say(status, body, X_Error_Code=code, X_Error_Message=message, **headers)

    def _repository(self, kind: str, name: str, revision: str) -> Path | None:
        known, directory = self.server.hub.repositories.get((kind, name), (None, None))
        hidden = (kind, name) in self.server.hub.private and self._user() != name.partition("/")[0]
        if directory is None or hidden:
            directory = None
            self.fail(404, "RepoNotFound", "Repository not found")
        elif revision not in (known, "main"):
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return directory

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        known, _ = self.server.hub.repositories.get((kind, name), (None, None))
        wanted = known if revision in (None, "main") else revision
        if directory := self._repository(kind, name, wanted):
            self._json(
                {
                    "id": name,
                    "sha": known,
                    "private": (kind, name) in self.server.hub.private,
                    "siblings": [{"rfilename": path} for path in files(directory)],
                }
            )

    def _tree(
        self, kind: str, name: str, revision: str, below: str | None, recursive: bool
    ) -> None:
        if not (directory := self._repository(kind, name, revision)):
            return
        top = directory / (below or "")
        if not top.is_dir():
            self.fail(404, "EntryNotFound", f"{below} does not exist on {revision}")
            return
        paths = sorted(top.rglob("*") if recursive else top.iterdir())
        self._json([_describe(path, directory) for path in paths])

    def _paths(self, kind: str, name: str, revision: str) -> None:
        if directory := self._repository(kind, name, revision):
            paths = [directory / path for path in parse_qs(self.body.decode())["paths"]]
            self._json([_describe(path, directory) for path in paths if path.is_file()])

    def _file(self, kind: str, name: str, revision: str, rest: str) -> None:
        directory = self._repository(kind, name, revision)
        if not directory:
            return
        path = directory / rest
        if not path.is_file():
            self.fail(404, "EntryNotFound", "Entry not found")
            return
        body, facts = path.read_bytes(), _describe(path, directory)
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

    def _user(self) -> str | None:
        """Return who asks: None without a token, "" for a token that no user has."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.server.hub.users.get(token, "") if token else None

    def _may_write(self, name: str) -> bool:
        user = self._user()
        if not user:
            self.fail(401, "", "Invalid credentials in Authorization header")
        elif user != name.partition("/")[0]:
            self.fail(403, "", f"You don't have the rights to write to {name}")
        elif ("model", name) not in self.server.hub.repositories:
            self.fail(404, "RepoNotFound", "Repository not found")
        else:
            return True
        return False

    def _write(self, path: str) -> bool:
        """Answer what an upload asks for, in the order in which the client asks it."""
        if path == "/api/repos/create":
            self._create()
        elif path == "/api/validate-yaml":
            self._validate()
        elif before := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            if self._may_write(before[1]):
                self._preupload(before[1])
        elif batch := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            if self._may_write(batch[1]):
                self._batch()
        elif put := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self._put(put[1])
        elif path == "/lfs/verify":
            known = self.sent["oid"] in self.server.hub.objects
            self.say(200) if known else self.fail(404, "", "Object not found")
        elif commit := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            if self._may_write(commit[1]):
                self._commit(commit[1])
        else:
            return False
        return True

    def _create(self) -> None:
        hub, owner = self.server.hub, self.sent["organization"]
        key = "model", f"{owner}/{self.sent['name']}"
        url = {"url": f"{hub.url}/{key[1]}"}
        if not self._user():
            self.fail(401, "", "Invalid credentials in Authorization header")
        elif self._user() != owner:
            self.fail(403, "", f'You don\'t have the rights to create a model under "{owner}"')
        elif key in hub.repositories:
            self._json(url | {"error": "You already created this model repo"}, 409)
        else:
            hub.repositories[key] = "0" * 40, hub.new_folder()
            if self.sent.get("visibility") == "private":
                hub.private.add(key)
            self._json(url)

    def _validate(self) -> None:
        """The metadata of a README.md: YAML that says a model's name and results, or nothing."""
        _, metadata, _ = re.split(r"^---\n", self.sent["content"], maxsplit=2, flags=re.M)
        try:
            for model in YAML(typ="safe").load(metadata).get("model-index", []):
                _ = model["name"], [result["metrics"] for result in model["results"]]
            self._json({"errors": [], "warnings": []})
        except (YAMLError, LookupError, TypeError) as error:
            self._json({"errors": [{"message": repr(error)}], "warnings": []}, 400)

    def _preupload(self, name: str) -> None:
        _, directory = self.server.hub.repositories["model", name]
        files = []
        for path in (file["path"] for file in self.sent["files"]):
            facts = _describe(directory / path, directory) if (directory / path).is_file() else {}
            files.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if _is_large(path) else "regular",
                    "shouldIgnore": False,
                    "oid": facts.get("lfs", facts).get("oid"),
                }
            )
        self._json({"files": files})

    def _batch(self) -> None:
        """An upload for what is not here yet, as Git LFS has it for the transfer `basic`."""
        hub, objects = self.server.hub, []
        for wanted in self.sent["objects"]:
            upload = {"href": f"{hub.url}/lfs/{wanted['oid']}"}
            actions = {"upload": upload, "verify": {"href": f"{hub.url}/lfs/verify"}}
            objects.append(
                wanted if wanted["oid"] in hub.objects else wanted | {"actions": actions}
            )
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        # A cloud store accepts whoever has the address, and refuses requests with the Hub's token.
        if "Authorization" in self.headers or hashlib.sha256(self.body).hexdigest() != oid:
            self.fail(400, "", "Not the object of that name, or two ways to say who asks")
        else:
            self.server.hub.objects[oid] = self.body
            self.say(200)

    def _commit(self, name: str) -> None:
        hub = self.server.hub
        header, *lines = (json.loads(line) for line in self.body.splitlines())
        current, before = hub.repositories["model", name]
        if header["value"].get("parentCommit", current) != current:
            self.fail(412, "", "A commit has happened since")
            return
        directory = hub.new_folder()
        shutil.copytree(before, directory, dirs_exist_ok=True)
        for line in lines:
            value, path = line["value"], directory / line["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile" and value["oid"] in hub.objects:
                path.write_bytes(hub.objects[value["oid"]])
            elif line["key"] == "deletedFile" and path.is_file():
                path.unlink()
            else:
                self.fail(400, "", f"Cannot {line['key']} {value['path']}")
                return
        oid = hashlib.sha1(str(directory).encode()).hexdigest()
        hub.repositories["model", name] = oid, directory
        hub.commits.append(header["value"])
        self._json(
            {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"}
        )


def files(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def _is_large(path: str) -> bool:
    return path.endswith((".parquet", ".safetensors"))


def _describe(path: Path, directory: Path) -> dict:
    name = path.relative_to(directory).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
    content = path.read_bytes()
    facts = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if _is_large(name):
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
        return hang_up(handler)

    return fault


def hang_up(handler: Handler) -> bool:
    """Break off the connection."""
    # The client may be gone already.
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def corrupt(handler: Handler) -> bool:
    """Send a body of the right length with other bytes."""
    if handler.command != "GET":
        return False
    kept = handler.wfile.write

    def write(body: bytes) -> int:
        if len(body) <= 600:
            return kept(body)
        # The next file on the same connection is whole again.
        handler.wfile.write = kept
        return kept(bytes(len(body)))

    handler.wfile.write = write
    return False
