"""A hub on this machine that can be pushed to: repositories, branches, large files by hash, commits, and reading back.

It keeps what a client did (`uploads`, `commits`), can break off (`die_after`), and wants a token for everything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".png", ".jsonl")  # stored by hash; a real hub decides by size and .gitattributes
TOKEN = "hf_" + "x" * 30
Files = dict[str, bytes]


@dataclass
class Repository:
    """Branches and commits, each a whole set of files."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    commits: dict[str, Files] = field(default_factory=lambda: {"0" * 40: {}})

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def at(self, revision: str = "main") -> Files:
        return self.commits[self.sha(revision) or ""]


@dataclass
class Hub:
    """What the server holds, and what was done to it."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)  # models/ORG/NAME, datasets/ORG/NAME
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by sha256
    uploads: list[str] = field(default_factory=list)  # sha256 of what was sent
    commits: int = 0
    die_after: int | None = None  # uploads, then every further one fails


@contextmanager
def serve() -> Iterator[Hub]:
    """Run an empty hub; HF_ENDPOINT is its address."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._read(send_body=False)

        def do_GET(self) -> None:
            self._read(send_body=True)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._answer(401, {"error": "Invalid username or password."})
            self._answer(*_post(hub, self._parts(), body))

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hub.die_after is not None and len(hub.uploads) >= hub.die_after:
                return self._answer(400, {"error": "broken off"})
            sha = hashlib.sha256(body).hexdigest()
            assert self.path == f"/upload/{sha}", "the upload is not what was announced"
            hub.uploads.append(sha)
            hub.stored[sha] = body
            self._answer(200, {})

        def _read(self, *, send_body: bool) -> None:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._answer(401, {"error": "Invalid username or password."}, {"X-Error-Code": "GatedRepo"})
            code, found, headers = _get(hub, self._parts())
            self._answer(code, found, headers, send_body=send_body)

        def _parts(self) -> list[str]:
            return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

        def _chunks(self) -> bytes:
            whole = b""
            while self.headers.get("Transfer-Encoding") == "chunked":
                size = int(self.rfile.readline(), 16)
                whole += self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    break
            return whole

        def _answer(self, code: int, found: Any, headers: dict[str, str] | None = None, *, send_body: bool = True) -> None:
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if send_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _post(hub: Hub, parts: list[str], body: bytes) -> tuple[int, Any]:
    if parts == ["api", "repos", "create"]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        key = f"{asked.get('type', 'model')}s/{name}"
        known = key in hub.repositories
        hub.repositories.setdefault(key, Repository(asked.get("visibility") == "private"))
        return 409 if known else 200, {"url": f"{hub.address}/{name}", "error": "You already created this repo"}
    if parts == ["api", "validate-yaml"]:
        wrong = "license: nonsense" in json.loads(body)["content"]
        return 400 if wrong else 200, {
            "errors": [{"message": '"license" must be one of [mit, ...]'}] * wrong,
            "warnings": [],
        }
    if parts[-3:] == ["lfs", "objects", "batch"]:
        return 200, {"transfer": "basic", "objects": [_large(hub, asked) for asked in json.loads(body)["objects"]]}
    if parts[0] == "verify":
        return (200, {}) if parts[1] in hub.stored else (404, {})
    found = hub.repositories.get("/".join(parts[1:4]))
    if found is None:
        return 404, {"error": "Repository not found"}
    verb, revision = parts[4], parts[5]
    if verb == "branch":
        known = revision in found.branches
        found.branches.setdefault(revision, found.branches["main"])
        return 409 if known else 200, {"error": "Reference already exists"}
    if verb == "preupload":
        return 200, {"files": [_mode(found, revision, asked["path"]) for asked in json.loads(body)["files"]]}
    if verb == "paths-info":
        wanted = json.loads(body)["paths"]
        return 200, [entry for entry in _tree(found.at(revision)) if entry["path"] in wanted]
    assert verb == "commit", f"the hub has no {'/'.join(parts)}"
    sha = _commit(hub, found, revision, body)
    name = "/".join(parts[2:4] if parts[1] == "models" else parts[1:4])
    return 200, {"commitOid": sha, "commitUrl": f"{hub.address}/{name}/commit/{sha}", "success": True}


def _large(hub: Hub, asked: dict[str, Any]) -> dict[str, Any]:
    known = asked["oid"] in hub.stored
    actions = {name: {"href": f"{hub.address}/{name}/{asked['oid']}"} for name in ("upload", "verify")}
    return {**asked, **({} if known else {"actions": actions})}


def _mode(found: Repository, revision: str, path: str) -> dict[str, Any]:
    content = found.at(revision).get(path)
    mode = "lfs" if path.endswith(LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": content and _oid(path, content)}


def _oid(path: str, content: bytes) -> str:
    large = path.endswith(LARGE)
    return hashlib.sha256(content).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit(hub: Hub, found: Repository, revision: str, body: bytes) -> str:
    files = dict(found.at(revision))
    for line in body.splitlines():
        change = json.loads(line)
        about = change["value"]
        match change["key"]:
            case "file":
                files[about["path"]] = base64.b64decode(about["content"])
            case "lfsFile":
                files[about["path"]] = hub.stored[about["oid"]]
            case "deletedFile":
                del files[about["path"]]
    hub.commits += 1
    sha = hashlib.sha1(body + str(hub.commits).encode()).hexdigest()
    found.commits[sha] = files
    found.branches[revision] = sha
    return sha


def _get(hub: Hub, parts: list[str]) -> tuple[int, Any, dict[str, str]]:
    missing = 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}
    if parts[0] == "api":
        found = hub.repositories.get("/".join(parts[1:4]))
        sha = found.sha(parts[5] if len(parts) > 5 else "main") if found else None
        if found is None or sha is None:
            return missing
        if parts[4:5] == ["tree"]:
            below = "/".join(parts[6:])
            return 200, [entry for entry in _tree(found.commits[sha]) if entry["path"].startswith(below)], {}
        if parts[4:5] == ["refs"]:
            refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in found.branches.items()]
            return 200, {"branches": refs, "converts": [], "tags": []}, {}
        about = {"id": "/".join(parts[2:4]), "sha": sha, "private": found.private, "tags": [], "downloads": 0}
        return 200, {**about, "siblings": [{"rfilename": name} for name in found.commits[sha]]}, {}
    kind, parts = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
    found = hub.repositories.get("/".join([kind, *parts[:2]]))
    sha = found.sha(parts[3]) if found and parts[2:3] == ["resolve"] else None
    if found is None or sha is None:
        return missing
    path = "/".join(parts[4:])
    content = found.commits[sha].get(path)
    if content is None:
        return 404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
    return 200, content, {"ETag": f'"{_oid(path, content)}"', "X-Repo-Commit": sha}


def _tree(files: Files) -> list[dict[str, Any]]:
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    entries: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
    for path, content in files.items():
        oid = _oid(path, content)
        large = {"lfs": {"oid": oid, "size": len(content), "pointerSize": 130}} if path.endswith(LARGE) else {}
        entries.append({"type": "file", "oid": oid, "size": len(content), "path": path, **large})
    return entries
