"""A server on the loopback address, and the archives it serves."""

import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Server", "running_server", "tarred", "zipped"]


class Server(ThreadingHTTPServer):
    """Serves ``files`` and leads to ``redirects``.

    Each answer ends after ``break_after`` bytes while ``breaks`` lasts.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.break_after, self.breaks = 0, 0
        self.ranges = True
        self.status = 200
        self.asked: list[str | None] = []
        self.redirects: dict[str, str] = {}
        self.tells_length = True

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/sets/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if leads := self.server.redirects.get(self.path.rpartition("/")[2]):
            self.send_response(302)
            self.send_header("Location", leads)
            self.end_headers()
            return
        content = self.server.files.get(self.path.rpartition("/")[2])
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if content is None or self.server.status != 200:
            self.send_error(404 if content is None else self.server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0  # type: ignore[index]
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        left = content[start:]
        if self.server.breaks:
            self.server.breaks -= 1
            left = left[: self.server.break_after]
        self.wfile.write(left)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_server() -> Iterator[Server]:
    """Serve as long as the block lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
