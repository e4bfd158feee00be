"""Build backend (PEP 517): setuptools, over a copy of exactly those modules of the repository that the verifier imports.

The copy is made anew for each build and lies in `src/`; a source distribution carries it along, so that it builds without the repository.
An import of anything else of ours ends the build: what is offered as independent of AWS must not come to need it unnoticed.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta

__all__ = [
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_wheel",
]

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
STAGED = HERE / "src"
ENTRY = "attestry.verifier.__main__"
ALLOWED = ("attestry.domain", "attestry.evidence", "attestry.verifier", "attestry.ports")


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what a wheel needs to be built beyond what is declared."""
    stage()
    return list(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """Return what a source distribution needs to be built beyond what is declared."""
    stage()
    return list(build_meta.get_requires_for_build_sdist(config_settings))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Write the metadata."""
    stage()
    return str(build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build the wheel."""
    stage()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build the source distribution."""
    stage()
    return str(build_meta.build_sdist(sdist_directory, config_settings))


def stage() -> None:
    """Copy the modules, unless this is a source distribution, which holds them already."""
    if not (REPOSITORY / "attestry" / "verifier").is_dir():
        return
    # What an earlier build left, setuptools' own folder included, would go into the wheel.
    for folder in (STAGED, HERE / "build"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in sorted(modules()):
        source = path_of(name)
        target = STAGED / source.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copyfile(REPOSITORY / "attestry" / "py.typed", STAGED / "attestry" / "py.typed")


def modules() -> set[str]:
    """Return the names of all modules of ours that the entry imports, now or when something is used, and their packages."""
    found: set[str] = set()
    waiting = [ENTRY]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if not name.startswith(ALLOWED):
            raise SystemExit(f"the verifier has come to need {name}, which is not part of it")
        found.add(name)
        waiting += imported(path_of(name))
    packages = {name.rpartition(".")[0] for name in found}
    return found | {"attestry"} | {p for p in packages if p != "attestry"}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports, other than for type checkers."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("attestry"):
            yield node.module
            yield from (name for a in node.names if path_of(name := f"{node.module}.{a.name}").is_file())
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("attestry"))
        waiting += ast.iter_child_nodes(node)


def path_of(name: str) -> Path:
    """Return where a module of ours is."""
    place = REPOSITORY.joinpath(*name.split("."))
    package = place / "__init__.py"
    return package if package.is_file() else place.with_suffix(".py")
