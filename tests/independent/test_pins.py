"""What is installed to judge us is pinned by hash, names no host to install from, and brings no code into this repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
LOCK = json.loads((HERE / "npm" / "package-lock.json").read_text())
INSTALLED = {path: package for path, package in LOCK["packages"].items() if path}


def test_every_package_of_npm_is_pinned_by_hash() -> None:
    assert {"node_modules/jose", "node_modules/@sigstore/verify"} <= INSTALLED.keys()
    assert all(package["integrity"].startswith("sha512-") for package in INSTALLED.values())


def test_the_lock_file_names_no_registry() -> None:
    assert not [path for path, package in INSTALLED.items() if "resolved" in package]


def test_versions_are_asked_for_exactly() -> None:
    wanted = json.loads((HERE / "npm" / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert wanted == LOCK["packages"][""]["dependencies"]


def test_no_foreign_code_lies_here() -> None:
    files = {path.relative_to(HERE).as_posix() for folder in ("go", "npm") for path in (HERE / folder).rglob("*") if path.is_file()}
    assert files == {"go/go.mod", "go/main.go", "npm/package-lock.json", "npm/package.json", "npm/verify.mjs"}
