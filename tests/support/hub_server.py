"""A stand-in for the Hugging Face hub: as much of its HTTP interface as finding and downloading models needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """The files of each commit, and the branches and tags that name commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


@dataclass
class Hub:
    """What the server serves, how it fails, and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    cut_after: int | None = None  # bytes of the next answer, then the connection ends
    status: int | None = None  # answer everything so
    faults: dict[str, int] = field(default_factory=dict)  # answer so to files that are listed

    def add(
        self,
        name: str,
        files: dict[str, bytes],
        revision: str = "main",
        *,
        token: str | None = None,
        gated: bool = False,
    ) -> str:
        """Commits files to a branch and returns the commit."""
        repo = self.repos.setdefault(name, Repo())
        repo.token, repo.gated = token, gated
        commit = hashlib.sha1(f"{revision}{len(repo.commits)}{sorted(files)}".encode()).hexdigest()
        repo.commits[commit], repo.refs[revision] = files, commit
        return commit

    def downloads(self) -> list[str]:
        """Paths of the files that were sent."""
        return [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, unquote(path), {k.lower(): v for k, v in self.headers.items()}))
        match = INFO.fullmatch(path) or RESOLVE.fullmatch(path)
        if self.hub.status is not None or match is None:
            return self.refuse(self.hub.status or 404)
        name, revision, *file = (unquote(group or "main") for group in match.groups())
        repo = self.hub.repos.get(name)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in {repo.token for repo in self.hub.repos.values()}:
            return self.refuse(401, message="Invalid credentials in Authorization header")
        if repo is None:
            return self.refuse(404 if given else 401, "RepoNotFound")
        if repo.token not in (None, given) and not repo.gated:
            return self.refuse(401, "RepoNotFound")
        if repo.token not in (None, given) and file:  # anyone may see what a gated repository has
            return self.refuse(403 if given else 401, "GatedRepo")
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            return self.refuse(404, "RevisionNotFound")
        files = repo.commits[commit]
        if not file:
            info = {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
            return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        if file[0] in self.hub.faults:
            return self.refuse(self.hub.faults[file[0]])
        if file[0] not in files:
            return self.refuse(404, "EntryNotFound", commit)
        return self.send_file(files[file[0]], commit)

    def send_file(self, data: bytes, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(data)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None:
            return self.send(200, data, headers)
        first = int(wanted[1])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return self.send(206, data[first:], headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut, self.hub.cut_after = (self.hub.cut_after, None) if "ETag" in headers else (None, self.hub.cut_after)
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def refuse(self, status: int, code: str = "", commit: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Repo-Commit": commit, "X-Error-Message": message}
        self.send(status, b"", {key: value for key, value in headers.items() if value})


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub at a free port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()
        server.server_close()


def use(hub_url: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Sends this process's huggingface_hub there; it has read its environment variables already."""
    patch.setattr(constants, "ENDPOINT", hub_url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.delenv("HF_TOKEN", raising=False)
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
