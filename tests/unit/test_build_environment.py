"""Environments: their IDs, lock files, and archives that pip really makes, of small wheels on this disk."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.environments import environment_id, read_lock
from attestry.domain.errors import IntegrityError, InvalidInputError, StageFailedError
from attestry.sandbox.unpack import unpack_zip
from attestry.usecases.build_environment import EnvironmentBuilder, Platform
from tests.fakes import Faults, Killed, MemoryObjectStore

PLATFORM = Platform("3.11", "linux_x86_64")
HASH = "--hash=sha256:" + "a" * 64


def wheel(folder: Path, name: str, files: dict[str, str], requires: str = "") -> str:
    """Write a wheel and return its line in a lock file."""
    info = f"{name}-1.0.dist-info"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(
        f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(c.encode()).digest()).rstrip(b'=').decode()},{len(c)}\n"
        for n, c in members.items()
    )
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(member, content)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def lock_in(store: MemoryObjectStore, text: str) -> dict[str, str]:
    """Put a lock file where the builder reads it and return what is wanted."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    identity = environment_id(sha256, PLATFORM.python, PLATFORM.name)
    store.put_new(f"environments/{identity}/requirements.lock", text.encode())
    return {"id": identity, "lock_sha256": sha256}


def builder(store: MemoryObjectStore) -> EnvironmentBuilder:
    return EnvironmentBuilder(store, PLATFORM, seconds=60)


def archive_of(store: MemoryObjectStore, wanted: dict[str, str]) -> bytes:
    return store.read(f"environments/{wanted['id']}/environment.zip", max_bytes=1 << 20)


def two_packages(wheels: Path) -> str:
    first = wheel(
        wheels,
        "alpha",
        {"alpha/__init__.py": "import beta\nVALUE = beta.VALUE\n", "alpha/tests/test_a.py": "x = 1\n"},
        "Requires-Dist: beta\n",
    )
    return first + wheel(wheels, "beta", {"beta.py": "VALUE = {'a', 'b', 'c'}\n"})


def test_an_environment_is_described_by_its_stored_archive(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    (described,) = builder(store).build_all([wanted])
    archive = archive_of(store, wanted)
    assert described["archive_sha256"] == hashlib.sha256(archive).hexdigest()
    assert described["size"] == len(archive)
    assert described["packages"] == [{"name": "alpha", "version": "1.0"}, {"name": "beta", "version": "1.0"}]
    assert (described["id"], described["lock_sha256"]) == (wanted["id"], wanted["lock_sha256"])
    assert (described["python"], described["platform"]) == ("3.11", "linux_x86_64")
    stored = store.stat(described["key"])
    assert stored is not None
    assert stored.version_id == described["version_id"]
    assert json.loads(store.read(f"environments/{wanted['id']}/environment.json", max_bytes=1 << 20)) == described


def test_a_built_environment_can_be_imported_and_holds_no_commands(wheels: Path, tmp_path: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    builder(store).build(identity=wanted["id"], lock_sha256=wanted["lock_sha256"])
    (tmp_path / "e.zip").write_bytes(archive_of(store, wanted))
    paths = unpack_zip(tmp_path / "e.zip", tmp_path / "unpacked")
    code = "import sys; sys.path.append(sys.argv[1]); import alpha; print(sorted(alpha.VALUE), alpha.__cached__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(tmp_path / "unpacked")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['a', 'b', 'c']")
    assert not [path for path in paths if path.startswith("bin/")]
    assert any(path.startswith("alpha/__pycache__/__init__") for path in paths)
    assert not [path for path in paths if path.startswith("alpha/tests/__pycache__")]
    assert "bin/" not in (tmp_path / "unpacked/alpha-1.0.dist-info/RECORD").read_text()


def test_two_builds_of_one_lock_file_give_equal_bytes(wheels: Path) -> None:
    text = two_packages(wheels)
    archives = []
    for _ in range(2):
        store = MemoryObjectStore()
        wanted = lock_in(store, text)
        builder(store).build_all([wanted])
        archives.append(archive_of(store, wanted))
    assert archives[0] == archives[1]


def test_an_environment_that_is_there_is_not_built_again(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    first = builder(store).build_all([wanted])
    for file in wheels.iterdir():
        file.unlink()
    assert builder(store).build_all([wanted, wanted]) == [first[0], first[0]]


def test_the_first_archive_stands_and_all_builders_describe_it(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("gamma-2.0.dist-info/METADATA", "Name: gamma\nVersion: 2.0\n")

    class Slow(MemoryObjectStore):
        """Another builder's archive arrives between looking and writing."""

        def put_new(self, key: str, body: object, **settings: object) -> object:  # type: ignore[override]
            if key.endswith("environment.zip"):
                super().put_new(key, other.getvalue())
            return super().put_new(key, body, **settings)  # type: ignore[arg-type]

    slow = Slow()
    lock_in(slow, two_packages(wheels))
    (described,) = builder(slow).build_all([wanted])
    assert described["archive_sha256"] == hashlib.sha256(other.getvalue()).hexdigest()
    assert described["packages"] == [{"name": "gamma", "version": "2.0"}]


def test_two_builders_at_once_end_with_one_description(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    results: list[dict[str, object]] = []
    threads = [threading.Thread(target=lambda: results.extend(builder(store).build_all([wanted]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0] == results[1]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [1, 2])
def test_a_builder_that_is_killed_at_a_write_can_be_tried_again(wheels: Path, call: int, after: bool) -> None:
    faults = Faults()
    store = MemoryObjectStore(faults)
    wanted = lock_in(store, two_packages(wheels))
    fail = faults.fail_after if after else faults.fail_before
    fail(call, method="put_new", error=Killed())
    with pytest.raises(Killed):
        builder(store).build(wanted["id"], wanted["lock_sha256"])
    faults.clear()
    described = builder(store).build(wanted["id"], wanted["lock_sha256"])
    assert described["archive_sha256"] == hashlib.sha256(archive_of(store, wanted)).hexdigest()


def test_a_wheel_with_another_hash_is_not_installed(wheels: Path) -> None:
    store = MemoryObjectStore()
    wheel(wheels, "alpha", {"alpha.py": ""})
    wanted = lock_in(store, f"alpha==1.0 {HASH}\n")
    with pytest.raises(StageFailedError, match="DO NOT MATCH THE HASHES") as caught:
        builder(store).build_all([wanted])
    assert str(wheels) not in caught.value.message
    assert store.stat(f"environments/{wanted['id']}/environment.zip") is None


def test_a_source_distribution_is_not_built_because_that_would_run_its_code(wheels: Path) -> None:
    store = MemoryObjectStore()
    (wheels / "alpha-1.0.tar.gz").write_bytes(b"x")
    wanted = lock_in(store, f"alpha==1.0 {HASH}\n")
    with pytest.raises(StageFailedError, match="the environment cannot be built"):
        builder(store).build_all([wanted])


def test_a_dependency_without_hash_is_refused(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels).split("\n")[0] + "\n")
    with pytest.raises(StageFailedError, match="--require-hashes"):
        builder(store).build_all([wanted])


def test_credentials_of_the_function_do_not_reach_pip(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attestry.sandbox.archive_environment import _environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("ATTESTRY_STORE", "store")
    assert not [name for name in _environment() if name.startswith(("AWS_", "ATTESTRY_"))]


def test_another_lock_file_than_the_registered_one_is_refused(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    store.tamper(f"environments/{wanted['id']}/requirements.lock", b"alpha==2.0\n")
    with pytest.raises(IntegrityError):
        builder(store).build_all([wanted])


def test_an_id_of_another_python_is_refused(wheels: Path) -> None:
    store = MemoryObjectStore()
    wanted = lock_in(store, two_packages(wheels))
    with pytest.raises(InvalidInputError, match=r"Python 3\.99"):
        EnvironmentBuilder(store, Platform("3.99", "linux_x86_64"), seconds=60).build_all([wanted])


def test_the_id_depends_on_lock_file_python_and_platform() -> None:
    ids = {
        environment_id(lock, python, platform) for lock in ("a" * 64, "b" * 64) for python in ("3.11", "3.13") for platform in ("x", "y")
    }
    assert len(ids) == 8
    assert environment_id("a" * 64, "3.13", "linux_aarch64") == "eeffacf14c122738ee1b919ccbaf6cac4075dabe36f90fa197e3ae731602b76e"


def test_a_lock_file_as_uv_and_pip_compile_write_it_is_read() -> None:
    text = f"""# made by a tool
alpha==1.0 ; python_full_version < '3.12' and sys_platform != 'win32' \\
    {HASH} \\
    --hash=sha256:{"b" * 64}
    # via -r requirements.in
Beta.Pkg[extra,more]==2!1.0.post1+cpu {HASH}  # comment
"""
    first, second = read_lock(text.encode())
    assert (first.name, first.version, first.marker) == ("alpha", "1.0", "python_full_version < '3.12' and sys_platform != 'win32'")
    assert first.hashes == ("a" * 64, "b" * 64)
    assert second.to_text() == f"Beta.Pkg[extra,more]==2!1.0.post1+cpu {HASH}"
    assert (first.line, second.line) == (2, 6)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("--index-url https://evil.example", "no_options"),
        ("--no-binary :all:", "no_options"),
        ("-r /etc/passwd", "no_options"),
        ("-e .", "no_options"),
        (f"alpha @ https://evil.example/alpha.whl {HASH}", "no_urls"),
        (f"./alpha.whl {HASH}", "no_urls"),
        ("alpha==1.0", "hash"),
        (f"alpha>=1.0 {HASH}", "pinned"),
        (f"alpha==1.* {HASH}", "pinned"),
        (f"alpha {HASH}", "pinned"),
        (f"alpha==1.0 {HASH} --config-settings=x=y", "pinned"),
        (f"alpha==1.0 --global-option=x {HASH}", "pinned"),
        (f"alpha==1.0 \\\n --index-url=https://evil.example {HASH}", "no_urls"),
        ("alpha==1.0 --hash=md5:" + "a" * 32, "pinned"),
        ("", "required"),
    ],
)
def test_a_lock_file_with_more_than_pins_and_hashes_is_refused_with_its_line(line: str, rule: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_lock(f"# first\n{line}\n".encode())
    problem = caught.value.problems[0]
    assert problem.rule == rule
    assert problem.line == (2 if line else None)


@pytest.mark.parametrize(("begin", "end"), [("alpha==1.0;", ""), ("alpha", "b"), ("alpha==1.0 # ", "#")])
def test_a_lock_file_of_a_million_blanks_is_refused_at_once(begin: str, end: str) -> None:
    before = process_time()
    with pytest.raises(InvalidInputError):
        read_lock(f"{begin}{' ' * 1_000_000}{end}".encode())
    assert process_time() - before < 2


def test_a_comment_of_a_lock_file_begins_behind_a_blank_and_takes_the_blanks_along() -> None:
    (read,) = read_lock(f"alpha==1.0 \\   # why\n   {HASH}  # the wheel # of it\n# a line of its own\n".encode())
    assert read.to_text().startswith("alpha==1.0")


@given(st.text(alphabet=st.sampled_from("ab=1.0 \\\n#;-[],'\"<>:/@") | st.characters(), max_size=120))
def test_whatever_is_accepted_reaches_pip_as_pins_and_hashes_only(text: str) -> None:
    try:
        requirements = read_lock(f"{text} {HASH}\n".encode("utf-8", "replace"))
    except InvalidInputError:
        return
    for requirement in requirements:
        line = requirement.to_text()
        assert "\n" not in line
        assert not line.startswith("-")
        assert line.count(" --") == len(requirement.hashes)
        assert "://" not in line
