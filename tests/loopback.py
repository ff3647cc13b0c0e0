"""Small real HTTP servers on the loopback interface: one that serves files and can misbehave, and a model hub."""

import hashlib
import json
import re
import socket
import struct
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Loopback:
    """Serves `files` ({"/path": bytes}); use it in a `with` block.

    `troubles["/path"]` is a list of what the next GETs of a path meet, each once: an HTTP status (500), ``"cut"``
    (the connection breaks in the middle), ``"stall"`` (half of the body, then silence), ``"mute"`` (silence from the
    start), ``"drip"`` (a byte each 0.1 s), ``"whole"`` (ranges are ignored), or bytes (another body). `seen` lists
    (method, path, Range header or None).
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.troubles: dict[str, list] = defaultdict(list)
        self.seen: list[tuple[str, str, str | None]] = []
        self.closing = threading.Event()

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.serve(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that went away is part of the tests

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def serve(self, request):
        path = unquote(urlsplit(request.path).path)
        self.seen.append((request.command, path, request.headers.get("Range")))
        trouble = self.troubles[path].pop(0) if self.troubles[path] and request.command == "GET" else None
        if isinstance(trouble, int):
            self.answer(request, trouble, b"")
        elif path not in self.files:
            self.answer(request, 404, b"not here")
        else:
            self.send_file(request, trouble if isinstance(trouble, bytes) else self.files[path], trouble)

    def send_file(self, request, body, trouble, headers=()):
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked and trouble != "whole":
            start = int(asked[1])
            if start >= len(body):
                return self.answer(request, 416, b"")
            span = ("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            return self.answer(request, 206, body[start:], (*headers, span), trouble)
        return self.answer(request, 200, body, headers, trouble)

    def answer(self, request, status, body, headers=(), trouble=None):
        if trouble == "mute":
            request.close_connection = True
            self.closing.wait(30)
            return
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "HEAD":
            return
        if trouble == "drip":
            for byte in body:
                request.wfile.write(bytes([byte]))
                request.wfile.flush()
                if self.closing.wait(0.1):
                    break
            request.close_connection = True
            return
        if trouble in ("cut", "stall"):
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            request.close_connection = True
            if trouble == "stall":
                self.closing.wait(30)
            return
        request.wfile.write(body)


class FakeHub(Loopback):
    """Answers the calls that huggingface_hub's model_info and snapshot_download make, and `datasets.load_dataset`.

    `repos` is {"ORG/NAME": {"commit": sha, "folder": Path, "gated": bool}}; weights count as large files, whose etag
    is their SHA-256.
    """

    def __init__(self):
        super().__init__()
        self.repos: dict[str, dict] = {}
        self.datasets: dict[str, dict] = {}

    def add_dataset(self, name: str, folder: Path) -> str:
        """Publish a folder as a dataset; returns its commit."""
        commit = hashlib.sha1(name.encode()).hexdigest()
        self.datasets[name] = {"commit": commit, "folder": Path(folder)}
        return commit

    def add(self, name: str, folder: Path, *, gated: bool = False) -> str:
        """Publish a folder as a model; returns its commit."""
        commit = hashlib.sha1(name.encode()).hexdigest()
        self.repos[name] = {"commit": commit, "folder": Path(folder), "gated": gated}
        return commit

    def serve(self, request):
        path = unquote(urlsplit(request.path).path)
        self.seen.append((request.command, path, request.headers.get("Range")))
        found = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", path)
        if found:
            return self.dataset(request, path, *found.groups())
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        if found:
            return self.describe(request, *found.groups())
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found:
            return self.resolve(request, path, *found.groups())
        return self.answer(request, 404, b"")

    def dataset(self, request, path, name, kind, revision, file):
        """What the `datasets` library asks of a dataset's repository."""
        repo = self.datasets.get(name)
        if repo is None:
            return self.answer(request, 401, b"{}", [("X-Error-Code", "RepoNotFound")])
        if revision not in (None, repo["commit"]):
            return self.answer(request, 404, b"{}", [("X-Error-Code", "RevisionNotFound")])
        files = {place.relative_to(repo["folder"]).as_posix(): place for place in repo["folder"].rglob("*.*")}
        if kind == "resolve":
            if file not in files:
                return self.answer(request, 404, b"", [("X-Error-Code", "EntryNotFound")])
            data = files[file].read_bytes()
            return self.send_file(request, data, None, [("ETag", f'"{git_hash(data)}"'), ("X-Repo-Commit", revision)])
        if kind == "tree":
            body = [self.entry(place, name) for name, place in sorted(files.items()) if name.startswith(f"{file}/")]
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            body = {
                "id": name,
                "sha": repo["commit"],
                "siblings": siblings,
                "private": False,
                "gated": False,
                "tags": [],
            }
        return self.answer(request, 200, json.dumps(body).encode(), [("Content-Type", "application/json")])

    def describe(self, request, name, kind, revision):
        repo = self.repos.get(name)
        if repo is None:
            return self.answer(request, 401, b"{}", [("X-Error-Code", "RepoNotFound")])
        if revision not in (None, repo["commit"]):
            return self.answer(request, 404, b"{}", [("X-Error-Code", "RevisionNotFound")])
        files = sorted(file for file in repo["folder"].rglob("*") if file.is_file())
        entries = [self.entry(file, file.relative_to(repo["folder"]).as_posix()) for file in files]
        facts = {
            "id": name,
            "modelId": name,
            "sha": repo["commit"],
            "gated": "manual" if repo["gated"] else False,
            "siblings": [{"rfilename": entry["path"]} for entry in entries],
        }
        body = json.dumps(entries if kind == "tree" else facts).encode()
        return self.answer(request, 200, body, [("Content-Type", "application/json")])

    def entry(self, file, path):
        data = file.read_bytes()
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        if file.suffix == ".safetensors":
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    def resolve(self, request, path, name, revision, file):
        repo = self.repos.get(name)
        if repo is None:
            return self.answer(request, 401, b"", [("X-Error-Code", "RepoNotFound")])
        if repo["gated"]:
            return self.answer(request, 403, b"", [("X-Error-Code", "GatedRepo")])
        place = repo["folder"] / file
        if revision != repo["commit"] or not place.is_file():
            return self.answer(request, 404, b"", [("X-Error-Code", "EntryNotFound")])
        data = place.read_bytes()
        etag = hashlib.sha256(data).hexdigest() if place.suffix == ".safetensors" else git_hash(data)
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", revision)]
        trouble = self.troubles[path].pop(0) if self.troubles[path] and request.command == "GET" else None
        return self.send_file(request, trouble if isinstance(trouble, bytes) else data, trouble, headers)


def git_hash(data: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def closed_port() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as probe:
        # Without lingering, so that nothing answers there afterwards.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
