"""What mypy reads of the CDK: what `infra` names, what that names in its signatures, and nothing of the other hundreds of services.

The package names them all for a type checker, which reads for a minute and a half what nobody uses. A module that is left out counts as
anything (`Any`), so none may be left out that our types rest on.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from tests.infra.conftest import ROOT

NAMES = re.compile(r"^    import (aws_cdk[\w.]*) as _\w+$", re.MULTILINE)
"""How a generated module names, for type checkers, the modules that its signatures use."""


def read_by_mypy() -> list[str]:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    (skipped,) = [o for o in overrides if o["module"] == "aws_cdk.*"]
    (read,) = [o for o in overrides if isinstance(o["module"], list) and "aws_cdk" in o["module"]]
    assert (skipped["follow_imports"], read["follow_imports"]) == ("skip", "normal")
    return list(read["module"])


def named_by_us() -> Iterator[str]:
    for path in [ROOT / "app.py", *(p for part in ("infra", "attestry", "benchmarks") for p in (ROOT / part).rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "aws_cdk" in text else ():
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.startswith("aws_cdk"))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aws_cdk"):
                yield str(node.module)
                yield from (f"{node.module}.{alias.name}" for alias in node.names if source_of(f"{node.module}.{alias.name}"))


def source_of(module: str) -> Path | None:
    package = find_spec("aws_cdk")
    assert package is not None
    assert package.submodule_search_locations is not None
    place = Path(*[*package.submodule_search_locations][:1], *module.split(".")[1:])
    return next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.exists()), None)


def test_mypy_reads_every_module_of_the_cdk_that_our_types_rest_on() -> None:
    read = read_by_mypy()
    waiting, found = set(named_by_us()), set[str]()
    while waiting:
        module = waiting.pop()
        found.add(module)
        source = source_of(module)
        assert source is not None, module
        waiting |= set(NAMES.findall(source.read_text(encoding="utf-8"))) - found
    assert {"aws_cdk", "aws_cdk.aws_lambda", "aws_cdk.interfaces.aws_iam"} <= found
    assert [module for module in sorted(found) if not any(fnmatchcase(module, pattern) for pattern in read)] == []
