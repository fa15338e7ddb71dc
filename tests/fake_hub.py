"""A hub on this machine: enough of its interface to resolve a revision, to list files and to fetch small ones."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@contextmanager
def serve(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Serve repositories (`models/ORG/NAME` or `datasets/ORG/NAME` -> file name -> content); yield the address."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def _answer(self, *, send_body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            body, headers = self._info(parts[1:]) if parts[0] == "api" else self._file(parts)
            self.send_response(404 if body is None else 206 if "Range" in self.headers else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if send_body:
                self.wfile.write(body or b"")

        def _info(self, parts: list[str]) -> tuple[bytes | None, dict[str, str]]:
            """/api/{models|datasets}/ORG/NAME[/{revision|tree}/REV[/FOLDER]]"""
            files = repositories.get("/".join(parts[:3]))
            if files is None or not self._known(parts[4] if parts[3:4] in (["revision"], ["tree"]) else "main"):
                return None, {"X-Error-Code": "RepoNotFound"}
            if parts[3:4] == ["tree"]:
                inside = {name: body for name, body in files.items() if name.split("/")[:-1] == parts[5:]}
                listed = [{"type": "file", "path": n, "size": len(b), "oid": etag(b)} for n, b in inside.items()]
                return json.dumps(listed).encode(), {"Content-Type": "application/json"}
            found = {
                "id": "/".join(parts[1:3]),
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name in files],
            }
            return json.dumps(found).encode(), {"Content-Type": "application/json"}

        def _file(self, parts: list[str]) -> tuple[bytes | None, dict[str, str]]:
            """/[datasets/]ORG/NAME/resolve/REV/FILE"""
            if parts[0] != "datasets":
                parts = ["models", *parts]
            name = "/".join(parts[5:])
            files = repositories.get("/".join(parts[:3]), {})
            if parts[3:4] != ["resolve"] or not self._known(parts[4]) or name not in files:
                return None, {"X-Error-Code": "EntryNotFound"}
            body = files[name]
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                body = body[int(wanted[1]) : int(wanted[2] or len(body)) + 1]
            return body, {"ETag": f'"{etag(files[name])}"', "X-Repo-Commit": COMMIT}

        @staticmethod
        def _known(revision: str) -> bool:
            return revision in ("main", COMMIT)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
