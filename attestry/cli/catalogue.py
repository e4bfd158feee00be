"""Verbs of the catalogue: catalogue create, describe, tag, untag, alias, unalias, aliases, remark, remarks, delete; and search."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.read import ModelArgument, VersionArgument

_WRITERS = ("scientist", "admin")
_NAMERS = ("scientist", "approver", "deployer", "admin")
SubjectArgument = Annotated[str, typer.Argument(metavar="MODEL[@N]", help="The model; with @N, a version of it.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Names, tags, aliases and remarks: what people say about models and versions.")
    app.add_typer(group, name="catalogue")
    _register_models(group)
    _register_aliases(group)
    _register_remarks(group)
    _register_search(app)


def _register_models(group: typer.Typer) -> None:
    @verb(group, roles=_WRITERS)
    def create(
        cli: Cli,
        name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
        description: Annotated[str, typer.Option("--description", help="What it is.")] = "",
        tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")] = None,
        is_open: Annotated[bool, typer.Option("--open", help="Its versions may be deleted and its name changed.")] = False,
    ) -> None:
        """Create a model without versions."""
        mode = "open" if is_open else "governed"
        made = cli.client.create_model(name, description=description, tags=dict(map(_pair, tag or [])), mode=mode)
        cli.show(made, lambda m: f"{m['name']} is created ({m['mode']}); in references it is {m['model']}")

    @verb(group, roles=_WRITERS)
    def describe(
        cli: Cli, subject: SubjectArgument, description: Annotated[str, typer.Argument(metavar="TEXT", help="What it is.")]
    ) -> None:
        """Describe a model or a version."""
        model, number = _subject(subject)
        changes = {"description": description}
        told = cli.client.change_model(model, changes) if number is None else cli.client.label_version(model, number, changes)
        cli.show(told, lambda _: f"{subject} is described")

    @verb(group, roles=_WRITERS)
    def tag(cli: Cli, subject: SubjectArgument, pair: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="The tag.")]) -> None:
        """Set a tag of a model or version."""
        key, value = _pair(pair)
        cli.show(cli.client.set_tag(*_subject(subject), key, value), lambda t: f"{subject}: {t['key']} is {t['value']}")

    @verb(group, roles=_WRITERS)
    def untag(cli: Cli, subject: SubjectArgument, key: Annotated[str, typer.Argument(metavar="KEY", help="The tag's key.")]) -> None:
        """Take a tag away from a model or version."""
        cli.show(cli.client.delete_tag(*_subject(subject), key), lambda t: f"{subject} has no tag {t['key']}")

    @verb(group, roles=_WRITERS)
    def delete(cli: Cli, subject: SubjectArgument) -> None:
        """Delete an open model, or a version of it, from the catalogue; files, moves and events stay."""
        model, number = _subject(subject)
        told = cli.client.delete_model(model) if number is None else cli.client.call("DELETE", f"/v1/models/{model}/versions/{number}")
        cli.show(told, lambda _: f"{subject} is deleted from the catalogue")


def _register_aliases(group: typer.Typer) -> None:
    @verb(group, roles=_NAMERS)
    def alias(
        cli: Cli, version: VersionArgument, name: Annotated[str, typer.Argument(metavar="ALIAS", help="For example champion.")]
    ) -> None:
        """Let an alias name a version; it deploys nothing."""
        reference = read_reference(version)
        made = cli.client.set_alias(reference.model, name, reference.number)
        cli.show(made, lambda a: f"{a['alias']} is {a['model']}@{a['number']}")

    @verb(group, roles=_NAMERS)
    def unalias(cli: Cli, model: ModelArgument, name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")]) -> None:
        """Take an alias away."""
        cli.show(cli.client.delete_alias(model, name), lambda a: f"{model} has no alias {a['alias']}")

    @verb(group)
    def aliases(cli: Cli, model: ModelArgument) -> None:
        """List the aliases of a model."""
        cli.show(
            cli.client.aliases(model), lambda rows: "\n".join(f"{a['alias']}  {model}@{a['number']}  {a['by']}" for a in rows) or "none"
        )


def _register_remarks(group: typer.Typer) -> None:
    @verb(group)
    def remark(
        cli: Cli,
        version: VersionArgument,
        text: Annotated[str, typer.Argument(metavar="TEXT", help="The remark.")],
        transition: Annotated[int, typer.Option("--transition", help="Number of the move that it is about.")] = 0,
    ) -> None:
        """Remark on a version or on one of its moves; a remark is never changed."""
        reference = read_reference(version)
        made = cli.client.annotate(reference.model, reference.number, text, transition)
        cli.show(made, lambda r: f"remark {r['sequence']} on {reference}")

    @verb(group)
    def remarks(cli: Cli, version: VersionArgument) -> None:
        """List the remarks on a version."""
        reference = read_reference(version)
        listed = cli.client.annotations(reference.model, reference.number)
        cli.show(listed, lambda rows: "\n".join(_remark(row) for row in rows) or "none")


def _register_search(app: typer.Typer) -> None:
    @verb(app)
    def search(
        cli: Cli,
        words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Words of names, descriptions and tags.")] = None,
        versions: Annotated[bool, typer.Option("--versions", help="Find versions; by default, models.")] = False,
        where: Annotated[
            list[str] | None, typer.Option("--where", metavar="FIELD=VALUE", help="owner, standing, stage, data, ...; repeatable.")
        ] = None,
        tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")] = None,
        label: Annotated[
            list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label of the manifest; repeatable.")
        ] = None,
        metric: Annotated[
            list[str] | None, typer.Option("--metric", metavar="NAME:FROM:TO", help="A range of a metric; an end may be empty; repeatable.")
        ] = None,
        order: Annotated[str, typer.Option("--order", metavar="[-]ORDER", help="name, created, updated or a metric's name with @.")] = "",
        limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
        walk: Annotated[bool, typer.Option("--walk", help="Go through everything where no condition has an index.")] = False,
    ) -> None:
        """Find models or versions."""
        conditions: list[dict[str, Any]] = [{"text": " ".join(words)}] if words else []
        conditions += [{"field": key, "is": value} for key, value in map(_pair, where or [])]
        conditions += [{"tag": key, "is": value} for key, value in map(_pair, tag or [])]
        conditions += [{"label": key, "is": value} for key, value in map(_pair, label or [])]
        conditions += [_range(given) for given in metric or []]
        further: dict[str, Any] = {"max_results": min(limit, 200), "walk": walk, **({"order_by": _order(order)} if order else {})}
        found = list(islice(cli.client.search("versions" if versions else "models", conditions, **further), limit))
        cli.show(found, lambda rows: "\n".join(_hit(row) for row in rows) or "nothing")


def _pair(given: str) -> tuple[str, str]:
    key, separator, value = given.partition("=")
    if not separator or not key:
        raise typer.BadParameter(f"{given!r} is not KEY=VALUE")
    return key, value


def _subject(given: str) -> tuple[str, int | None]:
    if "@" not in given:
        return given, None
    reference = read_reference(given)
    return reference.model, reference.number


def _range(given: str) -> dict[str, Any]:
    parts = given.split(":")
    try:
        ends = {name: float(end) for name, end in zip(("from", "to"), parts[1:], strict=True) if end}
    except ValueError as error:
        raise typer.BadParameter(f"{given!r} is not NAME:FROM:TO") from error
    return {"metric": parts[0], **ends}


def _order(given: str) -> dict[str, Any]:
    by = given.removeprefix("-")
    descending = given != by
    if by.startswith("@"):
        return {"by": "metric", "metric": by[1:], "descending": descending}
    return {"by": by, "descending": descending}


def _hit(row: Mapping[str, Any]) -> str:
    if "number" not in row:
        named = ", ".join(f"{alias}={number}" for alias, number in row["aliases"].items())
        return "  ".join(part for part in (row["name"], row["mode"], named, row["description"][:60]) if part)
    metrics = ", ".join(f"{name} {value}" for name, value in row["metrics"].items())
    parts = (f"{row['model']}@{row['number']}", row["standing"], ", ".join(row["aliases"]), metrics)
    return "  ".join(part for part in parts if part)


def _remark(row: Mapping[str, Any]) -> str:
    about = f" on transition {row['transition']}" if row["transition"] else ""
    return f"{row['sequence']}  {row['at']}  {row['by']}{about}: {row['text']}"
