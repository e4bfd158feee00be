"""Unpacked environments that workers of one machine share: unpacked once, and never used when they are not what was unpacked."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestry.sandbox import environments, shelf
from attestry.sandbox.environments import EnvironmentCache
from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.job import Input
from attestry.sandbox.shelf import KEPT, Held, Shelf
from attestry.sandbox.unpack import Inventory
from attestry.sandbox.workspace import Workspace

BODY = b"VALUE = 42\n"
SHA256 = "a" * 64


class Unpacking:
    """Unpacks one module, and counts how often."""

    def __init__(self, during: Callable[[Path], None] = lambda _: None) -> None:
        self.times = 0
        self._during = during

    def __call__(self, folder: Path) -> Inventory:
        self.times += 1
        folder.mkdir(parents=True)
        (folder / "tiny.py").write_bytes(BODY)
        self._during(folder)
        return {"tiny.py": hashlib.sha256(BODY).hexdigest()}


@pytest.fixture
def shared(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "environments")


def taken(on: Shelf, unpack: Unpacking, sha256: str = SHA256) -> Held:
    held = on.take(sha256, unpack)
    assert held is not None
    return held


def test_an_environment_is_unpacked_once_for_all_who_take_it_at_the_same_time(shared: Shelf) -> None:
    unpack = Unpacking(lambda _: time.sleep(0.1))
    with ThreadPoolExecutor(16) as pool:
        holders = list(pool.map(lambda _: taken(shared, unpack), range(16)))
    assert unpack.times == 1
    assert {(held.folder / "tiny.py").read_bytes() for held in holders} == {BODY}


def test_one_whose_unpacking_failed_is_unpacked_by_the_next(shared: Shelf) -> None:
    def fail(_: Path) -> None:
        raise UnsafeArchiveError("a link")

    with pytest.raises(UnsafeArchiveError):
        shared.take(SHA256, Unpacking(fail))
    assert (taken(shared, Unpacking()).folder / "tiny.py").read_bytes() == BODY


def test_one_whose_unpacking_was_killed_is_unpacked_by_the_next(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        Shelf(tmp_path / "environments").take(SHA256, Unpacking(lambda _: os._exit(9)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    unpack = Unpacking()
    assert (taken(Shelf(tmp_path / "environments"), unpack).folder / "tiny.py").read_bytes() == BODY
    assert unpack.times == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "tiny.py").write_text("VALUE = 'poisoned'"),
        lambda folder: (folder / "evil.py").write_text(""),
        lambda folder: (folder / "tiny.py").unlink(),
        lambda folder: (folder / "evil").symlink_to("/etc"),
        lambda folder: folder.with_name(f"{SHA256}.json").write_text("{"),
        lambda folder: folder.with_name(f"{SHA256}.json").unlink(),
    ],
)
def test_what_is_not_as_it_was_unpacked_is_unpacked_anew(shared: Shelf, change: Callable[[Path], object]) -> None:
    held = taken(shared, Unpacking())
    held.release()
    change(held.folder)
    unpack = Unpacking()
    assert [path.name for path in taken(shared, unpack).folder.iterdir()] == ["tiny.py"]
    assert unpack.times == 1


def test_what_is_not_as_it_was_unpacked_is_not_taken_away_from_who_uses_it(shared: Shelf) -> None:
    held = taken(shared, Unpacking())
    (held.folder / "tiny.py").write_text("VALUE = 'poisoned'")
    assert shared.take(SHA256, Unpacking()) is None
    assert held.folder.is_dir()


def test_what_was_taken_longest_ago_goes_unless_it_is_held(shared: Shelf) -> None:
    first = taken(shared, Unpacking(), "0" * 64)
    others = [taken(shared, Unpacking(), str(number) * 64) for number in range(1, KEPT + 2)]
    for age, held in enumerate([first, *others]):
        os.utime(held.folder.with_name(f"{held.folder.name.removeprefix('environment-')}.lock"), (age, age))
    for held in others:
        held.release()
    taken(shared, Unpacking(), "f" * 64)
    assert first.folder.is_dir()
    assert [held.folder.is_dir() for held in others] == [False, False, True, True, True]


class Archives:
    """Stands in for fetching: an archive is its digest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unpacked: list[Path] = []
        self._lock = threading.Lock()
        monkeypatch.setattr(environments, "_unpack", self._unpack)

    def _unpack(self, archive: Input, folder: Path) -> Inventory:
        with self._lock:
            self.unpacked.append(folder)
        return Unpacking()(folder)


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> Archives:
    return Archives(monkeypatch)


def archive(digit: str = "a") -> Input:
    return Input("environment.zip", "https://store.invalid/environment.zip", 10, digit * 64)


def test_workers_share_where_the_kernel_confines_and_not_where_it_does_not(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    for possible, unpacked in ((True, 1), (False, 2)):
        monkeypatch.setattr(environments, "is_possible", lambda possible=possible: possible)
        archives.unpacked.clear()
        parent = tmp_path / str(possible)
        parent.mkdir()
        folders = {EnvironmentCache(Workspace(parent)).get(archive()) for _ in range(2)}
        assert (len(folders), len(archives.unpacked)) == (unpacked, unpacked)


@pytest.mark.parametrize(("on_aws", "landlock"), [(True, 7), (False, 2), (False, 0)])
def test_nothing_is_shared_on_aws_or_where_code_could_truncate_a_file(monkeypatch: pytest.MonkeyPatch, on_aws: bool, landlock: int) -> None:
    monkeypatch.setattr(shelf, "has_machine_of_its_own", lambda: on_aws)
    monkeypatch.setattr(shelf.confine, "landlock_version", lambda: landlock)
    assert not shelf.is_possible()


def test_a_worker_uses_one_of_its_own_where_the_shared_one_is_damaged_and_in_use(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "is_possible", lambda: True)
    user, other = EnvironmentCache(Workspace(tmp_path)), EnvironmentCache(Workspace(tmp_path))
    in_use = user.get(archive())
    (in_use / "tiny.py").write_text("VALUE = 'poisoned'")
    own = other.get(archive())
    assert own != in_use
    assert (own / "tiny.py").read_bytes() == BODY
    assert other.get(archive()) == own
    assert (user.get(archive()) / "tiny.py").read_bytes() == BODY
