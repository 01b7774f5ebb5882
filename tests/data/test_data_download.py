"""Fetching and unpacking archives, from a server on the loopback address."""

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from brnf.data import download
from brnf.data.download import archive_name, fetch
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.download_archives import Inputs, Options, Outputs, run
from tests.archive_server import Server, running_server, tarred, zipped

QUIET = Runtime(workers=0, progress="none")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "FIRST_WAIT", 0.001)
    with running_server() as running:
        yield running


CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


def fetched(server: Server, folder: Path, md5: str = MD5) -> Path:
    server.files["a.zip"] = CONTENT
    fetch(server.address("a.zip"), folder / "a.zip", md5, lambda chunks, _: chunks)
    return folder / "a.zip"


def test_broken_transfers_resume_where_they_ended(server: Server, tmp_path: Path) -> None:
    server.break_after, server.breaks = 3000, 3
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_later_call_resumes_what_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.break_after, server.breaks = 1000, 5
    with pytest.raises(
        UserError,
        match=r"a\.zip: broke off after 5000 bytes \(1000 of 6240 bytes came\); "
        r"run it again to resume$",
    ):
        fetched(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a.zip.part"]
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=5000-"


@pytest.mark.parametrize("begun", [CONTENT, CONTENT[:-1], CONTENT + b"more"])
def test_whatever_was_left_ends_in_the_right_file(
    server: Server, tmp_path: Path, begun: bytes
) -> None:
    (tmp_path / ".a.zip.part").write_bytes(begun)
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_servers_without_ranges_begin_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.break_after, server.breaks = False, 700, 2
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"^http[^\n]*/a\.zip: its md5 is {MD5} and must be {'0' * 32}; [^\n]+$"
    ):
        fetched(server, tmp_path, "0" * 32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "asked"), [(403, 1), (503, 5)])
def test_refusals_say_what_to_do(server: Server, tmp_path: Path, status: int, asked: int) -> None:
    server.status = status
    with pytest.raises(
        UserError,
        match=rf"a\.zip: the server answers {status} [^\n]*; "
        r"fetch it in another way and put it at [^\n]*a\.zip$",
    ):
        fetched(server, tmp_path)
    assert len(server.asked) == asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize("leads", ["ftp://server/a.zip", "file:///etc/passwd", "data:,x"])
def test_a_redirect_leads_to_http_only(server: Server, tmp_path: Path, leads: str) -> None:
    server.redirects["a.zip"] = leads
    with pytest.raises(UserError, match=r"a\.zip: the server [^\n]+; [^\n]+$"):
        fetched(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_redirect_within_http_is_followed(server: Server, tmp_path: Path) -> None:
    server.redirects["a.zip"] = server.address("b.zip")
    server.files["b.zip"] = CONTENT
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_https_leads_to_https_only() -> None:
    handler = download._Redirected()
    request = urllib.request.Request("https://server/a.zip")
    details = (None, 302, "Found", Message())
    with pytest.raises(UserError, match=r"leads to http://server/a.zip, which is not of https"):
        handler.redirect_request(request, *details, "http://server/a.zip")
    followed = handler.redirect_request(request, *details, "https://other/a.zip")
    assert followed is not None and followed.full_url == "https://other/a.zip"


@pytest.mark.parametrize("tells", [True, False])
def test_a_file_without_end_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 5000)
    server.tells_length = tells
    with pytest.raises(UserError, match=r"a\.zip[^\n]* more than 5000[^\n]*; correct the address"):
        fetched(server, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5000


def test_a_full_disk_is_told_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(
        UserError, match=r"10240 bytes are to come and 100 are free; free space [^\n]+$"
    ):
        fetched(server, tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://server/a.zip",
        "http://server/",
        "http:///a.zip",
        "a.zip",
        "http://s/..",
    ],
)
def test_addresses_are_of_http_and_name_a_file(address: str) -> None:
    with pytest.raises(UserError, match=r": no address of an archive; [^\n]+$"):
        archive_name(address)


def obtain(
    server: Server, folder: Path, files: dict[str, bytes], md5s: tuple[str, ...] | None = None
) -> None:
    server.files = files
    right = tuple(hashlib.md5(content).hexdigest() for content in files.values())
    options = Options(
        tuple(server.address(name) for name in files), right if md5s is None else md5s
    )
    run(Inputs(folder), Outputs(folder / "set.json"), options, QUIET)


SET = {
    "photographs.zip": zipped({"train2014/a.jpg": b"a", "train2014/b.jpg": b"b"}),
    "labels.tar": tarred({"annotations/x.json": b"{}", "train2014/c.jpg": b"c"}),
}


def shown(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file())


def test_archives_are_unpacked_into_one_folder_and_removed(server: Server, tmp_path: Path) -> None:
    obtain(server, tmp_path, SET)
    assert shown(tmp_path) == [
        "annotations/x.json",
        "set.json",
        "train2014/a.jpg",
        "train2014/b.jpg",
        "train2014/c.jpg",
    ]
    assert [entry["files"] for entry in json.loads((tmp_path / "set.json").read_text())] == [2, 2]


def test_files_that_differ_from_those_of_an_archive_stay(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / "a.jpg").write_bytes(b"a")
    (tmp_path / "train2014" / "b.jpg").write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"train2014/b\.jpg: is not what the archive holds; [^\n]+$"
    ):
        obtain(server, tmp_path, SET)
    assert (tmp_path / "train2014" / "b.jpg").read_bytes() == b"mine"
    (tmp_path / "train2014" / "b.jpg").unlink()
    obtain(server, tmp_path, SET)
    assert (tmp_path / "train2014" / "b.jpg").read_bytes() == b"b"


def test_archives_that_were_unpacked_before_are_not_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    wrong = (hashlib.md5(SET["photographs.zip"]).hexdigest(), "0" * 32)
    with pytest.raises(UserError, match=r"labels\.tar: its md5 is [^\n]+$"):
        obtain(server, tmp_path, SET, wrong)
    assert shown(tmp_path) == ["train2014/a.jpg", "train2014/b.jpg"]
    server.asked.clear()
    obtain(server, tmp_path, SET)
    assert len(server.asked) == 1 and (tmp_path / "set.json").exists()


def test_an_archive_fetched_by_hand_is_checked_and_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "labels.tar").write_bytes(SET["labels.tar"])
    obtain(server, tmp_path, SET)
    assert len(server.asked) == 1
    (tmp_path / "more.tar").write_bytes(b"another file")
    with pytest.raises(UserError, match=r"more\.tar: its md5 is [^\n]+$"):
        obtain(server, tmp_path, {"more.tar": SET["labels.tar"]})
    assert (tmp_path / "more.tar").read_bytes() == b"another file"


def test_members_that_lead_out_of_the_folder_are_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evil\.tar: its member '\.\./evil' [^\n]+$"):
        obtain(server, tmp_path / "data", {"evil.tar": tarred({"../evil": b"x"})})
    assert not (tmp_path / "evil").exists() and not (tmp_path / "data" / "set.json").exists()


def test_every_address_needs_a_checksum(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^download: 2 addresses and 1 md5s; [^\n]+$"):
        obtain(server, tmp_path, SET, (MD5,))
