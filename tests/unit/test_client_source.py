"""Packing the source out of real git repositories."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from attestry.client.source import DirtyTreeError, GitError, pack_source
from attestry.domain.errors import InvalidInputError

AUTHOR = {"GIT_AUTHOR_NAME": "dana", "GIT_AUTHOR_EMAIL": "dana@example.com"}
COMMITTER = {"GIT_COMMITTER_NAME": "erin", "GIT_COMMITTER_EMAIL": "erin@example.com"}


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, **AUTHOR, **COMMITTER, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    folder = root / "models" / "credit"
    (folder / "data").mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    (root / "outside.txt").write_text("not the model's")
    (folder / "train.py").write_text("print('train')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "größe.txt").write_text("ü")
    (folder / "data" / "rows.csv").write_text("a,b\n1,2\n")
    commit(root)
    return root


def commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "change")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def folder(repository: Path) -> Path:
    return repository / "models" / "credit"


def entries(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_the_folder_of_the_manifest_is_packed_with_paths_relative_to_it(folder: Path, repository: Path) -> None:
    packed = pack_source(folder)
    assert entries(packed.archive) == {
        "data/rows.csv": b"a,b\n1,2\n",
        "größe.txt": "ü".encode(),
        "run.sh": b"#!/bin/sh\n",
        "train.py": b"print('train')\n",
    }
    assert packed.sha256 == hashlib.sha256(packed.archive).hexdigest()
    assert packed.revision == git(repository, "rev-parse", "HEAD")
    assert packed.author == "dana <dana@example.com>"
    assert packed.diff is None


def test_a_manifest_at_the_top_of_its_repository_packs_all_of_it(repository: Path) -> None:
    assert "outside.txt" in entries(pack_source(repository).archive)


def test_data_files_that_are_uploaded_are_left_out(folder: Path) -> None:
    assert "data/rows.csv" not in entries(pack_source(folder, leave_out=["data/rows.csv"]).archive)


def test_the_same_revision_gives_the_same_bytes_whenever_and_wherever_it_is_packed(folder: Path, tmp_path: Path) -> None:
    first = pack_source(folder)
    os.utime(folder / "train.py", (1, 1))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(folder.parents[1]), str(clone))
    assert pack_source(folder).archive == first.archive
    assert pack_source(clone / "models" / "credit").archive == first.archive


def test_a_users_own_git_settings_do_not_change_the_bytes(folder: Path) -> None:
    first = pack_source(folder).archive
    for setting, value in (("core.autocrlf", "true"), ("tar.umask", "0077"), ("status.showUntrackedFiles", "no")):
        git(folder, "config", setting, value)
    git(folder, "config", "tar.tar.gz.command", "cat")
    assert pack_source(folder).archive == first


def test_the_archive_tells_no_times_and_no_owners(folder: Path) -> None:
    archive = pack_source(folder).archive
    assert archive[4:8] == b"\0\0\0\0"
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        facts = {(m.name, m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar.getmembers()}
    assert {f[2:] for f in facts} == {(0, 0, 0, "", "")}
    assert {f[0]: f[1] for f in facts}["run.sh"] == 0o755
    assert {f[0]: f[1] for f in facts}["train.py"] == 0o644


def test_a_dirty_tree_is_refused_with_the_list_of_changes(folder: Path) -> None:
    (folder / "train.py").write_text("changed")
    (folder / "new file.py").write_text("new")
    (folder / "run.sh").unlink()
    with pytest.raises(DirtyTreeError) as caught:
        pack_source(folder)
    changes = {line[:2].strip(): line[3:] for line in caught.value.changes}
    assert {Path(path).name for path in changes.values()} == {"train.py", "new file.py", "run.sh"}
    assert "new file.py" in caught.value.message


def test_staged_changes_are_changes_too(folder: Path) -> None:
    (folder / "train.py").write_text("changed")
    git(folder, "add", "train.py")
    with pytest.raises(DirtyTreeError):
        pack_source(folder)


def test_changes_elsewhere_in_the_repository_do_not_matter(folder: Path, repository: Path) -> None:
    (repository / "outside.txt").write_text("changed")
    assert pack_source(folder).diff is None


def test_changes_of_left_out_and_ignored_files_do_not_matter(folder: Path, repository: Path) -> None:
    (folder / ".gitignore").write_text("*.tmp\n")
    commit(repository)
    (folder / "x.tmp").write_text("ignored")
    (folder / "data" / "rows.csv").write_text("other rows")
    assert pack_source(folder, leave_out=["data/rows.csv"]).diff is None


def test_an_allowed_dirty_tree_is_packed_as_it_is_and_its_difference_is_kept(folder: Path, repository: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    (folder / "train.py").write_text("changed\n")
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "run.sh").unlink()
    status = git(folder, "status", "--porcelain")
    packed = pack_source(folder, allow_dirty=True)
    found = entries(packed.archive)
    assert found["train.py"] == b"changed\n"
    assert found["weights.bin"] == bytes(range(256))
    assert "run.sh" not in found
    assert packed.revision == base
    assert packed.diff_sha256 == hashlib.sha256(packed.diff or b"").hexdigest()
    assert git(folder, "status", "--porcelain") == status, "the index and the tree are as they were"


def test_the_kept_difference_leads_from_the_revision_to_what_was_packed(folder: Path, repository: Path, tmp_path: Path) -> None:
    (folder / "train.py").write_text("changed\n")
    (folder / "weights.bin").write_bytes(os.urandom(1000))
    packed = pack_source(folder, allow_dirty=True)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    (tmp_path / "source.diff").write_bytes(packed.diff or b"")
    git(clone, "apply", str(tmp_path / "source.diff"))
    commit(clone)
    assert pack_source(clone / "models" / "credit").archive == packed.archive


def test_a_clean_tree_has_no_difference_even_where_a_dirty_one_is_allowed(folder: Path) -> None:
    assert pack_source(folder, allow_dirty=True).diff is None


def test_an_older_revision_is_packed_when_the_manifest_names_it(folder: Path, repository: Path) -> None:
    older = git(repository, "rev-parse", "HEAD")
    (folder / "train.py").write_text("newer")
    commit(repository)
    packed = pack_source(folder, revision=older)
    assert packed.revision == older
    assert entries(packed.archive)["train.py"] == b"print('train')\n"


def test_a_revision_that_does_not_exist_is_named(folder: Path) -> None:
    with pytest.raises(GitError, match="no commit 0000"):
        pack_source(folder, revision="0" * 40)


def test_a_revision_cannot_be_an_option_of_git(folder: Path) -> None:
    with pytest.raises(GitError, match="no commit"):
        pack_source(folder, revision="--output=/tmp/x")


def test_a_folder_outside_of_any_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="in no git repository"):
        pack_source(tmp_path)


def test_a_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(GitError, match="no commit yet"):
        pack_source(tmp_path)


def test_a_symbolic_link_in_the_source_is_refused(folder: Path, repository: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    commit(repository)
    with pytest.raises(InvalidInputError, match="regular_files"):
        pack_source(folder)


def test_a_submodule_in_the_source_is_refused(folder: Path, repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "x").write_text("x")
    commit(other)
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "models/credit/sub")
    commit(repository)
    with pytest.raises(GitError, match="submodule"):
        pack_source(folder)


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("https://user:secret@git.example.com/x.git", "https://git.example.com/x.git"),
        ("https://git.example.com/x.git", "https://git.example.com/x.git"),
        ("git@git.example.com:team/x.git", "git@git.example.com:team/x.git"),
        ("ssh://git:secret@git.example.com:22/x.git", "ssh://git@git.example.com:22/x.git"),
        ("/srv/git/x.git", "file:///srv/git/x.git"),
    ],
)
def test_the_repository_is_named_without_credentials(folder: Path, remote: str, told: str) -> None:
    git(folder, "remote", "add", "origin", remote)
    assert pack_source(folder).repository == told


def test_a_repository_without_a_remote_is_named_by_its_folder(folder: Path, repository: Path) -> None:
    assert pack_source(folder).repository == repository.resolve().as_uri()


def test_a_foreign_git_environment_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert "train.py" in entries(pack_source(folder).archive)


def test_the_archive_is_plain_gzip(folder: Path) -> None:
    assert gzip.decompress(pack_source(folder).archive)
