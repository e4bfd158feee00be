"""MLmodel: what the file that MLflow writes beside a model says of it. It is read and never acted upon.

Rules:
- The file is data from somebody else. It is parsed by the strict reader of manifests (`attestry.domain.manifest_source`): at most 256 KiB,
  20 levels and 20,000 values, no aliases, no tags, no second document. Nothing that it names is imported, loaded, fetched or unpickled.
- Every flavour is kept, known here or not, as it was written. Signatures are JSON inside the YAML (`inputs`, `outputs`, `params`) and are
  parsed with the same bounds.
- A file that breaks a rule is refused as a whole, with the rule; the version is none the worse for it, since its bytes are kept either way.
- What it says is the word of who wrote it: that a flavour is `sklearn` makes no pickle safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.manifest_source import MAX_BYTES, MAX_DEPTH, parse_source

NAME: Final = "MLmodel"
REQUIREMENTS: Final = "requirements.txt"
MAX_FLAVORS: Final = 50
MAX_COLUMNS: Final = 2000
MAX_TEXT: Final = 500
MAX_REQUIREMENTS: Final = 1000
MAX_REQUIREMENTS_BYTES: Final = 64 * 1024
MAX_READING_BYTES: Final = 128 * 1024
"""Above this, the reading keeps the names of flavours and columns alone; the file itself is kept whole."""

_PYFUNC: Final = "python_function"
_TEXTS: Final = ("artifact_path", "mlflow_version", "model_id", "model_uuid", "run_id", "utc_time_created")

Field = Mapping[str, Any]


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, each field as MLflow writes it.

    A column is `{"name", "type", "required"}`, a tensor `{"type": "tensor", "tensor-spec": {"dtype", "shape"}}`; arrays and objects nest.

    Attributes:
        inputs: the inputs; None where the file does not say.
        outputs: the outputs; None where the file does not say.
        params: parameters of a prediction; None where the file does not say.
    """

    inputs: tuple[Field, ...] | None = None
    outputs: tuple[Field, ...] | None = None
    params: tuple[Field, ...] | None = None

    def to_item(self) -> dict[str, Any]:
        """Return the signature as JSON; what the file does not say is None."""
        parts = {"inputs": self.inputs, "outputs": self.outputs, "params": self.params}
        return {name: None if fields is None else [dict(f) for f in fields] for name, fields in parts.items()}


@dataclass(frozen=True)
class MlModel:
    """What an MLmodel file says.

    Attributes:
        flavors: name of each flavour to what is written of it.
        signature: inputs and outputs; None where it has none.
        python_version: of the `python_function` flavour, or empty.
        loader_module: the module that MLflow would import to load it; named here and never imported.
        environment: names of the files that describe the environment, such as `conda` and `virtualenv`.
        texts: `artifact_path`, `mlflow_version`, `model_id`, `model_uuid`, `run_id` and `utc_time_created`, as far as they are there.
        requirements: lines of the `requirements.txt` beside it.
    """

    flavors: Mapping[str, Mapping[str, Any]]
    signature: Signature | None = None
    python_version: str = ""
    loader_module: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()

    def to_item(self) -> dict[str, Any]:
        """Return the reading as JSON; where it would be larger than 128 KiB, `cut` is true and only names are left of the largest parts."""
        item: dict[str, Any] = {
            "flavors": {name: dict(content) for name, content in self.flavors.items()},
            "signature": None if self.signature is None else self.signature.to_item(),
            "python_version": self.python_version,
            "loader_module": self.loader_module,
            "environment": dict(self.environment),
            **{name: self.texts.get(name, "") for name in _TEXTS},
            "requirements": list(self.requirements),
            "cut": False,
        }
        if len(json.dumps(item)) <= MAX_READING_BYTES:
            return item
        return {**item, "flavors": {name: {} for name in self.flavors}, "signature": None, "requirements": [], "cut": True}


def read_mlmodel(data: bytes, requirements: bytes | None = None) -> MlModel:
    """Return what an MLmodel file says.

    Args:
        data: its bytes, whoever wrote them.
        requirements: those of the `requirements.txt` beside it; None where there is none. What cannot be read of it is left out.

    Raises:
        InvalidInputError: no MLmodel, or one that breaks a rule of the module; naming field, rule and line.
    """
    source = parse_source(data)
    if source.problems:
        raise InvalidInputError(source.problems[:5])
    body = source.value
    if not isinstance(body, dict):
        raise InvalidInputError.of("", "type", "an MLmodel file is a mapping")
    flavors = _flavors(body.get("flavors"))
    pyfunc: Mapping[str, Any] = flavors.get(_PYFUNC, {})
    return MlModel(
        flavors=flavors,
        signature=_signature(body.get("signature")),
        python_version=_text("flavors.python_function.python_version", pyfunc.get("python_version")),
        loader_module=_text("flavors.python_function.loader_module", pyfunc.get("loader_module")),
        environment=_environment(pyfunc.get("env")),
        texts={name: _text(name, body[name]) for name in _TEXTS if body.get(name) is not None},
        requirements=_requirements(requirements),
    )


def _flavors(value: object) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise InvalidInputError.of("flavors", "required", "an MLmodel file names at least one flavour")
    if len(value) > MAX_FLAVORS:
        raise InvalidInputError.of("flavors", "max_items", f"{len(value)} flavours; at most {MAX_FLAVORS} are read")
    for name, content in value.items():
        if content is not None and not isinstance(content, dict):
            raise InvalidInputError.of(f"flavors.{name[:80]}", "type", "a flavour is a mapping")
        if len(name) > MAX_TEXT:
            raise InvalidInputError.of("flavors", "length", "a flavour's name is too long")
    return {name: dict(content or {}) for name, content in value.items()}


def _signature(value: object) -> Signature | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidInputError.of("signature", "type", "a signature is a mapping with inputs, outputs and params")
    return Signature(*(_fields(f"signature.{name}", value.get(name)) for name in ("inputs", "outputs", "params")))


def _fields(name: str, value: object) -> tuple[Field, ...] | None:
    """Return the fields that one part of a signature lists, from its JSON text."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError.of(name, "type", "JSON in a text is needed")
    try:
        fields = json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError.of(name, "json", "the text is not acceptable JSON") from error
    if not isinstance(fields, list) or not all(isinstance(f, dict) and isinstance(f.get("type"), str) for f in fields):
        raise InvalidInputError.of(name, "fields", "a list of fields is needed, each with its type")
    if len(fields) > MAX_COLUMNS:
        raise InvalidInputError.of(name, "max_items", f"{len(fields)} fields; at most {MAX_COLUMNS} are read")
    _check_values(name, fields)
    return tuple(fields)


def _check_values(name: str, root: object) -> None:
    """Refuse nesting and numbers that other readers would take for something else; the stack is ours, so no depth exhausts it."""
    left = [(root, 1)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise InvalidInputError.of(name, "nesting", f"more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            left += [(key, depth) for key in value] + [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif isinstance(value, int) and not -(2**53) < value < 2**53:
            raise InvalidInputError.of(name, "number", "a number lies beyond those that every JSON reader agrees on")
        elif isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise InvalidInputError.of(name, "number", "a number is not finite")
        elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidInputError.of(name, "text", "a text has a lone surrogate")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _environment(value: object) -> dict[str, str]:
    """Return which files describe the environment; former versions of MLflow name one file alone."""
    if isinstance(value, str):
        return {"conda": _text("flavors.python_function.env", value)}
    if not isinstance(value, dict):
        return {}
    return {name: _text(f"flavors.python_function.env.{name[:80]}", file) for name, file in value.items() if file is not None}


def _requirements(data: bytes | None) -> tuple[str, ...]:
    if data is None or len(data) > MAX_REQUIREMENTS_BYTES:
        return ()
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return ()
    kept = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return tuple(line[:MAX_TEXT] for line in kept[:MAX_REQUIREMENTS] if line.isprintable())


def _text(name: str, value: object) -> str:
    """Return a scalar as text, as which it was written."""
    if value is None:
        return ""
    if isinstance(value, (bool, dict, list)):
        raise InvalidInputError([Problem(name, "type", "a text is needed")])
    text = str(value)
    if len(text) > MAX_TEXT:
        raise InvalidInputError.of(name, "length", f"has more than {MAX_TEXT} characters")
    return text


__all__ = ["MAX_BYTES", "NAME", "REQUIREMENTS", "MlModel", "Signature", "read_mlmodel"]
