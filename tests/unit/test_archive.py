"""Archives that strangers made."""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import subprocess
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.archive import ArchiveEntry, ArchiveLimits, inspect_archive, iterate_archive, read_archive_file
from attestry.domain.errors import InvalidInputError

Files = list[tuple[str, bytes]]


def packed(files: Files, *, form: int = tarfile.PAX_FORMAT, change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def rule_of(raw: bytes, limits: ArchiveLimits | None = None) -> str:
    with pytest.raises(InvalidInputError) as error:
        inspect_archive(io.BytesIO(raw), limits or ArchiveLimits(), field="source.archive")
    problem = error.value.problems[0]
    assert problem.field == "source.archive"
    return problem.rule


def unpacked(raw: bytes) -> Files:
    return [(member.path, member.stream.read()) for member in iterate_archive(io.BytesIO(raw))]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_come_out_as_they_went_in(form: int) -> None:
    files: Files = [("a.py", b"x = 1\n"), ("folder/b.bin", os.urandom(200_000)), ("empty", b""), ("x" * 90 + "/" + "y" * 90, b"long")]
    assert unpacked(packed(files, form=form)) == files


def test_long_and_foreign_names_come_out_whole() -> None:
    name = "ordner/" + "ü漢" * 40 + "/datei.txt"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert inspect_archive(io.BytesIO(packed([(name, b"x")], form=form))) == [ArchiveEntry(name, 1)]


def test_what_git_archive_writes_is_read(tmp_path: Path) -> None:
    def git(*arguments: str) -> bytes:
        identity = ["-c", "user.name=dana", "-c", "user.email=dana@example.com"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True).stdout

    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)\n")
    (tmp_path / ("ä" * 70)).write_text("x")
    git("add", ".")
    git("commit", "-qm", "first")
    raw = git("archive", "--format=tar.gz", "HEAD")
    assert sorted(entry.path for entry in inspect_archive(io.BytesIO(raw))) == ["src/train.py", "ä" * 70]


def test_a_leading_dot_is_dropped_and_folders_are_no_files() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in (".", "./model", "./empty/"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("./model/weights"))
    assert inspect_archive(io.BytesIO(out.getvalue())) == [ArchiveEntry("model/weights", 0)]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("/etc/passwd", "path_relative"),
        ("../../x", "path_no_parent"),
        ("a/../../x", "path_no_parent"),
        (".//etc/passwd", "path_relative"),
        ("././x", "path_plain_segments"),
        ("a\\..\\b", "path_no_backslash"),
        ("a\nb", "path_no_control_characters"),
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(name: str, rule: str) -> None:
    assert rule_of(packed([(name, b"x")])) == rule


def test_a_folder_outside_is_refused_too() -> None:
    def as_folder(info: tarfile.TarInfo) -> None:
        info.type = tarfile.DIRTYPE

    assert rule_of(packed([("../x", b"")], change=as_folder)) == "path_no_parent"


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    """Return a pax header with records that no writer would write."""
    body = b""
    for key, value in records:
        pair = f" {key}={value}\n".encode()
        length = next(n for n in range(len(pair), len(pair) + 10) if n == len(pair) + len(str(n)))
        body += str(length).encode() + pair
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, len(body)
    return header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def plain(name: str, content: bytes = b"x") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


END = b"\0" * 1024


def test_a_pax_header_cannot_smuggle_a_path_with_nul() -> None:
    assert rule_of(gzip.compress(pax(("path", "good\0/../evil")) + plain("a") + END)) == "path_no_nul"


def test_a_pax_header_decides_path_and_size_of_its_file() -> None:
    raw = gzip.compress(pax(("path", "real"), ("size", "3")) + plain("shown", b"abc") + END)
    assert unpacked(raw) == [("real", b"abc")]


@pytest.mark.parametrize(
    "stream",
    [
        pax(("path", "x"), kind=b"g") + plain("a"),
        pax(("size", "-1")) + plain("a"),
        pax(("size", "1e3")) + plain("a"),
        pax(("path", "b")) + pax(("path", "c")) + plain("a"),
        pax(("path", "b")),
        pax(("comment", "x" * 70_000)) + plain("a"),
        plain("a").replace(b"ustar", b"xxxxx"),
        b"not a tar at all".ljust(1024, b"."),
    ],
    ids=["global path", "negative size", "odd size", "two extensions", "extension of nothing", "huge extension", "checksum", "no tar"],
)
def test_headers_that_make_no_sense_are_refused(stream: bytes) -> None:
    assert rule_of(gzip.compress(stream + END)) == "tar"


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"S", b"V", b"7", b"K"],
)
def test_anything_but_files_and_folders_is_refused(kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type = kind
        info.linkname = "/etc/passwd"

    raw = packed([("harmless", b"")], change=change, form=tarfile.USTAR_FORMAT)
    assert rule_of(raw) == "regular_files"


def test_a_sparse_file_in_a_pax_header_is_refused() -> None:
    raw = gzip.compress(pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "../evil")) + plain("a") + END)
    assert rule_of(raw) == "regular_files"


@pytest.mark.parametrize(("one", "other"), [("a", "a"), ("Train.py", "train.py"), ("é", "e\u0301"), ("a", "a/b"), ("a/b", "A")])
def test_names_that_fall_together_are_refused(one: str, other: str) -> None:
    assert rule_of(packed([(one, b"1"), (other, b"2")])) == "path_distinct"


def test_names_that_are_not_utf8_are_refused() -> None:
    header = tarfile.TarInfo("\udcff\udcfeaa").tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    assert rule_of(gzip.compress(header + END)) == "path_no_control_characters"
    assert rule_of(gzip.compress(pax(("path", "aaaa")).replace(b"aaaa", b"\xff\xfeaa") + plain("a") + END)) == "path_utf8"


class TestLimits:
    def test_too_many_entries_are_refused(self) -> None:
        raw = packed([(f"f{i}", b"") for i in range(11)])
        assert rule_of(raw, ArchiveLimits(max_files=10)) == "entries"
        assert len(inspect_archive(io.BytesIO(raw), ArchiveLimits(max_files=11))) == 11

    def test_a_file_that_is_too_large_is_refused_by_its_header_before_it_is_read(self) -> None:
        head = tarfile.TarInfo("big")
        head.size = 10**12
        assert rule_of(gzip.compress(head.tobuf())) == "file_size"

    def test_files_that_are_too_large_together_are_refused(self) -> None:
        raw = packed([("a", b"x" * 600), ("b", b"x" * 600)])
        assert rule_of(raw, ArchiveLimits(max_bytes=1000)) == "unpacked_size"

    def test_a_bomb_is_stopped_while_it_unpacks_and_memory_stays_small(self) -> None:
        def bomb() -> bytes:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
            head = tarfile.TarInfo("zeros")
            head.size = 200 * 1024**2
            parts = [squeeze.compress(head.tobuf())]
            parts += [squeeze.compress(b"\0" * 1024**2) for _ in range(200)]
            return b"".join([*parts, squeeze.flush()])

        raw = bomb()
        assert len(raw) < 300_000
        tracemalloc.start()
        try:
            assert rule_of(raw, ArchiveLimits(max_bytes=50 * 1024**2)) == "unpacked_size"
            with pytest.raises(InvalidInputError):
                inspect_archive(io.BytesIO(raw))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 1024**2

    def test_endless_zeros_after_the_end_are_bounded(self) -> None:
        raw = gzip.compress(plain("a") + b"\0" * 30 * 1024**2)
        assert rule_of(raw, ArchiveLimits(max_files=10, max_bytes=1024)) == "unpacked_size"

    def test_endless_extension_headers_are_bounded(self) -> None:
        raw = gzip.compress(pax(("comment", "x" * 60_000), kind=b"g") * 400 + plain("a") + END)
        assert rule_of(raw, ArchiveLimits(max_files=10, max_bytes=1024)) == "unpacked_size"


class TestWholeness:
    RAW = packed([("a", os.urandom(5000)), ("b", b"y")])

    @given(st.integers(0, 5000))
    def test_an_archive_that_was_cut_anywhere_is_refused(self, at: int) -> None:
        with pytest.raises(InvalidInputError):
            inspect_archive(io.BytesIO(self.RAW[: min(at, len(self.RAW) - 1)]))

    def test_a_changed_byte_is_noticed_by_the_checksum(self) -> None:
        raw = bytearray(self.RAW)
        raw[2500] ^= 1
        assert rule_of(bytes(raw)) in ("gzip", "tar")

    @pytest.mark.parametrize("tail", [b"x", b"\0", gzip.compress(b"hidden")])
    def test_nothing_may_follow_the_compressed_archive(self, tail: bytes) -> None:
        assert rule_of(self.RAW + tail) == "gzip"

    def test_nothing_may_follow_the_end_marker(self) -> None:
        assert rule_of(gzip.compress(plain("a") + END + plain("hidden") + END)) == "tar"

    def test_a_file_that_is_not_gzip_is_refused(self) -> None:
        assert rule_of(plain("a") + END) == "gzip"
        assert rule_of(b"") == "gzip"


def test_a_member_that_is_not_read_or_half_read_or_closed_is_skipped() -> None:
    raw = packed([(name, os.urandom(150_000)) for name in "abc"] + [("last", b"end")])
    seen = []
    for member in iterate_archive(io.BytesIO(raw)):
        if member.path == "b":
            member.stream.read(10)
        if member.path == "c":
            member.stream.close()
        seen.append((member.path, member.stream.read() if member.path == "last" else None))
    assert seen == [("a", None), ("b", None), ("c", None), ("last", b"end")]


def test_one_file_can_be_read_out_of_an_archive() -> None:
    raw = packed([("a", b"1"), ("requirements.lock", b"pinned")])
    assert read_archive_file(io.BytesIO(raw), "requirements.lock", max_bytes=6) == b"pinned"
    assert read_archive_file(io.BytesIO(raw), "missing", max_bytes=6) is None
    with pytest.raises(InvalidInputError):
        read_archive_file(io.BytesIO(raw), "requirements.lock", max_bytes=5)


NAMES = st.text(alphabet=st.sampled_from("ab./\\\n\u202eäÄ~"), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=5), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_no_archive_ever_yields_a_path_outside(files: Files, form: int) -> None:
    try:
        for member in iterate_archive(io.BytesIO(packed(files, form=form))):
            assert posixpath.normpath(posixpath.join("/root/folder", member.path)) == f"/root/folder/{member.path}"
            assert len(member.stream.read()) == member.size
    except InvalidInputError:
        return


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_random_bytes_never_raise_anything_but_our_error(tail: bytes) -> None:
    for raw in (tail, gzip.compress(tail), gzip.compress(tail.ljust(1024, b"\0")), gzip.compress(plain("a") + tail)):
        try:
            inspect_archive(io.BytesIO(raw))
        except InvalidInputError:
            continue


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 1535), st.binary(min_size=1, max_size=12))
def test_a_tampered_header_never_raises_anything_but_our_error(at: int, patch: bytes) -> None:
    block = bytearray(pax(("path", "abc")) + plain("a"))
    block[at : at + len(patch)] = patch
    for start in (0, 1024):
        head = block[start : start + 512]
        head[148:156] = b" " * 8
        block[start + 148 : start + 156] = b"%06o\0 " % sum(head)
    try:
        inspect_archive(io.BytesIO(gzip.compress(bytes(block) + END)))
    except InvalidInputError:
        return
