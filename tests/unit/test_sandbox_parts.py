"""The sandbox's parts, each alone."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.sandbox.collect import pack_folder
from attestry.sandbox.errors import OutputError, UnsafeArchiveError
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.model_runner import RuleError, to_columns
from attestry.sandbox.paths import check_distinct, check_relative_path
from attestry.sandbox.unpack import Limits, differs_from_inventory, remove_tree, unpack_tar, unpack_zip
from attestry.sandbox.workspace import Workspace
from tests.unit.sandbox_world import ROOT, tar_gz, zipped


def tar_with(info: tarfile.TarInfo) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(info)
    return sink.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tar_with(special("x", tarfile.SYMTYPE, "/etc/passwd")), "link or a special file"),
        (tar_with(special("x", tarfile.LNKTYPE, "/etc/passwd")), "link or a special file"),
        (tar_with(special("x", tarfile.FIFOTYPE)), "link or a special file"),
        (tar_with(special("x", tarfile.CHRTYPE)), "link or a special file"),
        (tar_gz({"a/../../x": "1"}), "'..'"),
        (tar_gz({"/etc/x": "1"}), "absolute"),
        (tar_gz({"a\\b": "1"}), "backslash"),
        (tar_gz({"A.py": "1", "a.py": "2"}), "one name"),
        (tar_gz({"a": "1", "a/b": "2"}), "a file and"),
        (tar_gz({"x": "1" * 200}), "unpacks to more than"),
        (tar_gz({str(n): "" for n in range(20)}), "unpacks to more than"),
        (tar_gz({"x": "1"})[:-20], "damaged"),
        (b"not a tar", "damaged"),
    ],
    ids=[f"rule-{n}" for n in range(13)],
)
def test_a_tar_that_breaks_a_rule_is_refused_and_nothing_is_written(tmp_path: Path, archive: bytes, said: str) -> None:
    (tmp_path / "a.tar").write_bytes(archive)
    with pytest.raises(UnsafeArchiveError, match=said):
        unpack_tar(tmp_path / "a.tar", tmp_path / "out", Limits(size=100, entries=10))
    assert not (tmp_path / "out").exists()


def test_a_tar_made_by_git_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    run = ["git", "-C", str(tmp_path / "repository")]
    subprocess.run([*run, "init", "-q"], check=True)
    (tmp_path / "repository" / "pkg").mkdir()
    (tmp_path / "repository" / "pkg" / "a.py").write_text("1")
    subprocess.run([*run, "add", "."], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*run, *identity, "commit", "-qm", "x"], check=True)
    subprocess.run([*run, "archive", "--format=tar.gz", "-o", str(tmp_path / "a.tar.gz"), "HEAD"], check=True)
    assert unpack_tar(tmp_path / "a.tar.gz", tmp_path / "out") == ["pkg/a.py"]
    assert (tmp_path / "out/pkg/a.py").read_text() == "1"


def test_an_unpacked_zip_is_compared_with_its_inventory(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"p/a.py": "1", "p/b.py": "2", "c": "3"}))
    folder = tmp_path / "out"
    inventory = unpack_zip(tmp_path / "a.zip", folder)
    assert differs_from_inventory(folder, inventory) is None
    (folder / "p/new.py").write_text("")
    assert differs_from_inventory(folder, inventory) == "p/new.py"
    (folder / "p/new.py").unlink()
    (folder / "p/a.py").write_text("changed")
    assert differs_from_inventory(folder, inventory) == "p/a.py"
    (folder / "p/a.py").unlink()
    (folder / "p/a.py").symlink_to("b.py")
    assert differs_from_inventory(folder, inventory) == "p/a.py"
    (folder / "p/a.py").unlink()
    assert differs_from_inventory(folder, inventory) == "p/a.py"
    (folder / "p/a.py").write_text("1")
    (folder / "p/b.py").write_text("changed")
    (folder / "c").write_text("changed")
    assert differs_from_inventory(folder, inventory) == "c"
    (folder / "p").rename(tmp_path / "elsewhere")
    (folder / "p").symlink_to(tmp_path / "elsewhere")
    assert differs_from_inventory(folder, inventory) == "p"


@given(st.text(max_size=40))
def test_a_path_that_is_accepted_stays_below_its_folder(path: str) -> None:
    try:
        check_relative_path(path)
    except UnsafeArchiveError:
        return
    assert Path("/root/folder", path).resolve().is_relative_to("/root/folder")
    assert os.path.normpath(path) == path


def test_names_that_differ_only_in_case_or_composition_collide() -> None:
    for first, second in (("a/B", "a/b"), ("é", "e\u0301"), ("ß", "SS"), ("A/x", "a/y"), ("a", "a/b")):
        with pytest.raises(UnsafeArchiveError):
            check_distinct([first, second])


@given(st.lists(st.binary(max_size=400), max_size=60), st.integers(200, 1000))
def test_a_log_never_grows_beyond_its_limit_and_keeps_both_ends(chunks: list[bytes], limit: int) -> None:
    log = BoundedLog(limit)
    for chunk in chunks:
        log.write(chunk)
    whole = b"".join(chunks)
    content = log.content()
    assert len(content) <= limit
    plain = whole.decode("utf-8", "replace").replace("\ufffd", "?").encode()
    if len(whole) <= limit:
        assert content == plain
    else:
        assert b"bytes left out here" in content


def test_equal_outputs_give_equal_archives(tmp_path: Path) -> None:
    for name, order in (("one", ("b", "a")), ("two", ("a", "b"))):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in order:
            (tmp_path / name / "sub" / file).write_text(file)
        pack_folder(tmp_path / name, tmp_path / f"{name}.tar.gz", max_bytes=100)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_an_output_folder_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(OutputError, match="no folder any more"):
        pack_folder(tmp_path / "out", tmp_path / "x.tar.gz", max_bytes=100)


def test_a_folder_is_removed_whatever_its_modes_are(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("")
    (tmp_path / "a/b").chmod(0)
    (tmp_path / "a").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_folder_of_a_worker_that_died_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom attestry.sandbox.workspace import Workspace\nprint(Workspace(Path(sys.argv[1])).root)"
    )
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    assert Path(dead).exists()
    living = Workspace(tmp_path)
    other = Workspace(tmp_path)
    assert not Path(dead).exists()
    assert living.root.exists()
    living.close()
    other.close()
    assert not list(tmp_path.iterdir())


SHIELDED = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from attestry.sandbox import confine
confine.shield_worker()
child = '''
import sys
sys.path.insert(0, sys.argv[1])
from attestry.sandbox import confine
confine._drop_capabilities()
for name in ("environ", "mem"):
    try: open(f"/proc/{sys.argv[2]}/{name}", "rb").read(1); print("readable")
    except OSError as error: print(type(error).__name__)
'''
subprocess.run([sys.executable, "-c", child, sys.argv[1], str(os.getpid())])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_shielded_worker_cannot_be_read_by_its_child_even_without_landlock() -> None:
    done = subprocess.run([sys.executable, "-c", SHIELDED, str(ROOT)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PermissionError", "PermissionError"], done.stderr


def test_outputs_become_columns_of_json_values() -> None:
    numpy = pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    assert to_columns([1, 2], 2) == ({"prediction": [1, 2]}, False)
    assert to_columns(numpy.array([[0.5], [1]], dtype="float32"), 2) == ({"prediction": [0.5, 1.0]}, False)
    assert to_columns(numpy.array([[1, 2], [3, 4]]), 2) == ({"prediction_0": [1, 3], "prediction_1": [2, 4]}, False)
    assert to_columns(pandas.Series(["a", "b"]), 2) == ({"prediction": ["a", "b"]}, False)
    assert to_columns({"p": numpy.float64([0.1]), "q": [True]}, 1) == ({"p": [0.1], "q": [True]}, True)
    assert to_columns(pandas.DataFrame({"p": [1], "q": ["x"]}), 1) == ({"p": [1], "q": ["x"]}, True)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ([1.0, float("nan")], "row 1: nan is not a finite number"),
        ([1.0, float("inf")], "row 1: inf is not a finite number"),
        ([1.0], "has 1 rows, the input had 2"),
        ([[[1]], [[2]]], "3 dimensions"),
        (1.0, "0 dimensions"),
        ({"p": [1, None]}, "type NoneType"),
        ({"p": [1, 2 + 1j]}, "type complex"),
        ({"p": 5}, "no list of values"),
        ({}, "0 columns"),
    ],
)
def test_an_output_that_breaks_a_rule_is_refused(output: object, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        to_columns(output, 2)
