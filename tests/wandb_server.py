"""A stand-in for W&B's server: it takes what a client sends and keeps it in memory."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PROJECT = {"id": "p", "internalId": "p", "name": "stv_exp", "entity": {"id": "e", "name": "me"}}
FEATURES = [{"name": "CLIENT_IDS", "isEnabled": True}]


@dataclass
class Received:
    """`calls` by operation, `files` by name: the bytes that were uploaded; `runs` and `artifacts` by name."""

    address: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the server says to a query, as far as a client needs it."""
        self.calls.append((operation, given))
        made = getattr(self, f"on_{operation.lower()}", None)
        return made(given) if made else {}

    def on_viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        names = {"id": "u", "name": "me", "username": "me", "entity": "me", "admin": False, "flags": "{}"}
        return {"viewer": names | {"teams": {"edges": []}, "apiKeys": {"edges": []}}}

    on_getdefaultentity = on_viewer

    def on_serverfeaturesquery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": FEATURES}}

    def on_upsertbucket(self, given: dict[str, Any]) -> dict[str, Any]:
        known = {key: value for key, value in given.items() if value is not None}
        self.runs[given["name"]] = self.runs.get(given["name"], {}) | known
        bucket = {"id": "b", "name": given["name"], "displayName": "", "config": "{}", "historyLineCount": 0}
        return {"upsertBucket": {"bucket": bucket | {"project": PROJECT}, "inserted": True}}

    def on_createrunfiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self._upload(name)} for name in given["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    def on_artifacttype(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def on_createartifact(self, given: dict[str, Any]) -> dict[str, Any]:
        name, made = given["input"]["artifactCollectionName"], given["input"]
        self.artifacts[name] = made
        sequence = {"id": name, "latestArtifact": None}
        found = {"id": name, "state": "PENDING", "digest": made["digest"], "artifactSequence": sequence}
        return {"createArtifact": {"artifact": found}}

    def on_createartifactmanifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": self._upload("manifest"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def on_createartifactfiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for made in given["input"]["artifactFiles"]:
            where = {"uploadUrl": self._upload(made["name"]), "uploadHeaders": [], "uploadMultipartUrls": None}
            known = {"id": "f", "name": made["name"], "displayName": made["name"], "storagePath": made["name"]}
            nodes.append({"node": known | where | {"artifact": {"id": made["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_commitartifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def on_useartifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.used.append(given.get("artifactID") or given["input"]["artifactID"])
        return {"useArtifact": {"artifact": {"id": "a"}}}

    def on_artifactbyid(self, given: dict[str, Any]) -> dict[str, Any]:
        made, sequence = self.artifacts[given["id"]], {"__typename": "ArtifactSequence", "name": given["id"]}
        found = {"__typename": "Artifact", "id": given["id"], "artifactSequence": sequence | {"project": PROJECT}}
        found |= {"artifactType": {"name": made["artifactTypeName"]}, "state": "COMMITTED", "digest": made["digest"]}
        found |= dict.fromkeys(("description", "metadata", "updatedAt", "historyStep", "commitHash"))
        found |= {"versionIndex": 0, "ttlDurationSeconds": -1, "ttlIsInherited": False, "tags": [], "aliases": []}
        return {"artifact": found | {"size": 1, "fileCount": 1, "createdAt": "2026-01-01T00:00:00"}}

    def on_projectinternalid(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": PROJECT}

    def on_getprojects(self, given: dict[str, Any]) -> dict[str, Any]:
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        known = {"__typename": "Project", "id": "p", "name": "stv_exp", "entityName": "me", "createdAt": "2026-01-01"}
        return {"models": {"edges": [{"node": known | {"isBenchmark": False, "user": None}}], "pageInfo": page}}

    def on_upsertview2(self, given: dict[str, Any]) -> dict[str, Any]:
        self.views[given["displayName"]] = given
        return {"upsertView": {"view": given | {"id": "v", "name": "n"}, "inserted": True}}

    def on_upsertview(self, given: dict[str, Any]) -> dict[str, Any]:
        self.reports[given["displayName"]] = given
        kept = {key: given[key] for key in ("displayName", "description", "spec", "name")}
        return {"upsertView": {"view": kept | {"id": "r", "project": PROJECT | {"entityName": "me"}}, "inserted": True}}

    def _upload(self, name: str) -> str:
        return f"{self.address}/upload/{name}"


@contextmanager
def serving() -> Iterator[Received]:
    """A server on a free port of this machine, which ends with the body."""
    received = Received()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(received))
    received.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(received: Received) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

        def do_GET(self) -> None:
            self._say({})

        def do_PUT(self) -> None:
            received.files[self.path.removeprefix("/upload/")] = self._body()
            self._say({})

        def do_POST(self) -> None:
            body = self._body()
            if not self.path.endswith("/graphql"):
                self._say({"exitcode": None, "limits": {}})
                return
            asked = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            self._say({"data": received.answer(named[1] if named else "", asked.get("variables") or {})})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _say(self, value: object) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler
