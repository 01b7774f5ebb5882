"""Files fetched over HTTP: resumed where they broke off, checked before they get their name."""

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from brnf.errors import UserError

__all__ = ["Watch", "archive_name", "check_md5", "fetch"]

CHUNK = 1 << 20
ATTEMPTS = 5
TIMEOUT = 60.0
FIRST_WAIT = 1.0
MOST_BYTES = 32 * 2**30
"""Of a file; COCO's largest archive has 13 GB."""

WRONG = "correct the address, or fetch it in another way"

Watch = Callable[[Iterator[bytes], int | None], Iterable[bytes]]
"""Passes on the pieces of a file, to show how far a transfer is; the number is that of all that are
left, None when unknown.
"""


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


def archive_name(address: str) -> str:
    """Return the file name in an address.

    Raises:
        UserError: the address is not of HTTP, or names no file.
    """
    parts = urlsplit(address)
    name = Path(unquote(parts.path)).name
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or not name
        or name.startswith(".")
    ):
        raise UserError(
            f"{address}: no address of an archive; give http(s)://server/path/name.tar or .zip"
        )
    return name


def fetch(address: str, target: Path, md5: str, watch: Watch) -> None:
    """Fetch a file; what an earlier call began is resumed, and ``target`` appears only when the
    whole has the right checksum.

    Arguments:
        address: of HTTP or HTTPS.
        target: its folder must exist; the unfinished file is ``.<name>.part`` beside it.
        md5: 32 hexadecimal digits that the file must have.
        watch: see :data:`Watch`.

    Raises:
        UserError: the server refuses, the connection breaks off again and again, the disk is full,
            or the checksum is wrong.
    """
    part = target.with_name(f".{target.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(address, part, watch)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS:
                raise UserError(
                    f"{address}: the server answers {error.code} {error.reason}; fetch it in "
                    f"another way and put it at {target}"
                ) from error
        except (OSError, HTTPException, _BrokenOffError) as error:
            if attempt == ATTEMPTS:
                done = part.stat().st_size if part.exists() else 0
                reason = getattr(error, "reason", error)
                raise UserError(
                    f"{address}: broke off after {done} bytes ({reason}); run it again to resume"
                ) from error
        time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
    try:
        check_md5(part, md5, address)
    except UserError:
        part.unlink()
        raise
    os.replace(part, target)


def check_md5(path: Path, md5: str, name: str) -> None:
    """Compare a file with its checksum.

    Arguments:
        path: the file.
        md5: 32 hexadecimal digits.
        name: what the message calls the file.

    Raises:
        UserError: they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5.lower():
        raise UserError(
            f"{name}: its md5 is {found} and must be {md5.lower()}; remove what is there and fetch "
            "it again, or correct the md5"
        )


class _Redirected(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere only where it is as safe: to https, from http also to http."""

    def redirect_request(
        self, request: urllib.request.Request, *details: Any
    ) -> urllib.request.Request | None:
        address = details[-1]
        scheme = urlsplit(address).scheme
        if scheme != "https" and (scheme, request.type) != ("http", "http"):
            raise UserError(
                f"{request.full_url}: the server leads to {address}, which is not of https; {WRONG}"
            )
        return super().redirect_request(request, *details)


_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.ProxyHandler(),
    urllib.request.HTTPHandler(),
    urllib.request.HTTPSHandler(),
    urllib.request.HTTPDefaultErrorHandler(),
    urllib.request.HTTPErrorProcessor(),
    _Redirected(),
):
    _OPENER.add_handler(_handler)


def _transfer(address: str, part: Path, watch: Watch) -> None:
    """Append what the unfinished file lacks."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response: HTTPResponse = _OPENER.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # There is nothing behind the last byte: the file is complete, or not what the server has
        # now.
        if error.headers.get("Content-Range", "").rpartition("/")[2] != str(done):
            part.unlink()
            raise _BrokenOffError("the server has another file now") from error
        return
    with response:
        if response.status != 206:
            done = 0  # this server sends whole files only
        length = response.headers.get("Content-Length")
        left = int(length) if length and length.isdecimal() else None
        _check_disk(part, left)
        received = 0
        most = MOST_BYTES - done
        with part.open("ab" if done else "wb") as file:
            for chunk in watch(
                iter(lambda: response.read(CHUNK), b""), None if left is None else -(-left // CHUNK)
            ):
                received += len(chunk)
                if received > most:
                    raise UserError(f"{address}: sends more than {MOST_BYTES} bytes; {WRONG}")
                file.write(chunk)
    if left is not None and received < left:
        raise _BrokenOffError(f"{received} of {left} bytes came")


def _check_disk(part: Path, left: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if left is not None and left > MOST_BYTES:
        raise UserError(f"{part}: {left} bytes are to come, more than {MOST_BYTES}; {WRONG}")
    if left is not None and left > free:
        raise UserError(
            f"{part.parent}: {left} bytes are to come and {free} are free; free space or choose "
            "another folder"
        )
