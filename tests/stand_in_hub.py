"""A model hub on this machine, as its client sees it: repositories, commits, tokens."""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from huggingface_hub import constants, file_download

TOKEN = "hf_of_a_test"


@dataclass
class Repository:
    """What is served of one repository."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=list)

    def commit(self, files):
        """Add files to those of the last commit; gives the name of the new one."""
        before = self.commits[-1] if self.commits else {}
        self.commits.append(before | files)
        return self.name(len(self.commits) - 1)

    def name(self, number):
        return hashlib.sha1(str(number).encode()).hexdigest()

    def find(self, revision):
        """The number of a commit; None: there is none."""
        if revision == "main":
            return len(self.commits) - 1
        names = [self.name(number) for number in range(len(self.commits))]
        return names.index(revision) if revision in names else None


class Hub(http.server.ThreadingHTTPServer):
    """The server and its repositories."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        """Method and path of each request."""

        self.lies: dict[str, bytes] = {}
        """What is sent in place of the content of a file."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def serve(self, name, folder):
        """Put the files of a folder into a repository; gives the name of the commit."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.repositories.setdefault(name, Repository()).commit(files)


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.server.asked.append(f"HEAD {self.path}")
        if self.path == "/":
            return self._send(200, b"")
        return self._file()

    def do_GET(self):
        self.server.asked.append(f"GET {self.path}")
        asked = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^?]+))?(?:\?.*)?", self.path
        )
        return self._file() if asked is None else self._listing(*asked.groups())

    def _listing(self, name, kind, revision):
        repository = self.server.repositories.get(name)
        if repository is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if kind is None and not repository.commits:
            return self._json(200, {"id": name, "private": repository.private})
        number = repository.find(unquote(revision or "main"))
        if number is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[number]
        if kind == "tree":
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in files.items()
            ]
            return self._json(200, listed)
        siblings = [{"rfilename": path} for path in files]
        known = {"id": name, "private": repository.private, "sha": repository.name(number)}
        return self._json(200, known | {"siblings": siblings})

    def _file(self):
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/]+)", self.path)
        if found is None:
            return self._send(404, b"")
        name, revision, file = found.groups()
        repository = self.server.repositories.get(name)
        if repository is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        number = repository.find(revision)
        if number is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = {"X-Repo-Commit": repository.name(number)}
        if file not in repository.commits[number]:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"} | commit)
        content = repository.commits[number][file]
        digest = hashlib.sha256(content).hexdigest()
        sent = self.server.lies.get(file, content)
        return self._send(200, sent, {"ETag": f'"{digest}"'} | commit)

    def do_POST(self):
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            told = {"url": f"{self.server.url}/{name}", "name": name}
            if name in self.server.repositories:
                return self._json(409, {"error": "You already created this model repo"} | told)
            private = asked.get("private", False) or asked.get("visibility") == "private"
            self.server.repositories[name] = Repository(private=private)
            return self._json(200, told)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        if found is None or found[1] not in self.server.repositories:
            return self._json(404, {"error": "not found"})
        if found[2] == "preupload":
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._json(200, {"files": files})
        lines = map(json.loads, body.splitlines())
        files = {
            each["value"]["path"]: base64.b64decode(each["value"]["content"])
            for each in lines
            if each["key"] == "file"
        }
        oid = self.server.repositories[found[1]].commit(files)
        url = f"{self.server.url}/{found[1]}/commit/{oid}"
        return self._json(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _json(self, status, value):
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def point_client_at(url, *, cache, monkeypatch):
    """Let the hub's client of this process ask another address, with a cache and no token."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # the second in versions before 1.0
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def running_hub():
    """A hub without repositories."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
