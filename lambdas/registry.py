"""API: everything that is read: models, versions, differences, logs, data, traces."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.errors import IntegrityError
from attestry.domain.paging import write_cursor
from attestry.domain.policies import Policy, read_document, read_since
from attestry.domain.search_request import FIELDS, read_query
from attestry.usecases import browse
from attestry.usecases.annotate import list_annotations
from attestry.usecases.audit_reading import list_batches, show_batch
from attestry.usecases.catalogue import list_aliases, read_labels
from attestry.usecases.findings import list_findings, place_of
from attestry.usecases.ledger import read_file
from attestry.usecases.lineage import MAX_DEPTH, LineageWalker
from attestry.usecases.packet import show_packet, show_promotion_packet
from attestry.usecases.policies import edition_place, list_editions, number_in_force, policies_in_force
from attestry.usecases.policy_replay import replay_promotions
from attestry.usecases.refresh_by_hand import show_refreshes
from attestry.usecases.rollout_request import show_rollouts
from attestry.usecases.search import search_models, search_versions
from attestry.usecases.trace import trace_prediction

world = World()


def me(request: Request) -> dict[str, Any]:
    """Tell who the caller is to the registry, and where which role counts for them."""
    return {**caller(request, world.settings).to_item(), "access": request.standing.to_item()}


def models(request: Request) -> dict[str, Any]:
    """List the models that the caller may read."""
    page = request.page()
    found, behind = browse.list_models(world.meta, page, request.readable)
    listed = page.answer("models", found, lambda row: str(row["model"]))
    return listed if behind is None else {**listed, "next": write_cursor(page.bound, behind)}


def model(request: Request) -> Answer:
    """Show a model."""
    shown = browse.show_model(world.meta, request.text("model"))
    return Answer(shown, rev=shown["rev"])


def aliases(request: Request) -> dict[str, Any]:
    """List the aliases of a model."""
    return {"aliases": [alias.to_dict() for alias in list_aliases(world.meta, request.text("model"))]}


def labels(request: Request) -> dict[str, Any]:
    """Show description and tags of a version."""
    return read_labels(world.meta, request.text("model"), request.number("number")).to_dict()


def remarks(request: Request) -> dict[str, Any]:
    """List the remarks on a version."""
    after = request.query_number("after") if "after" in request.query else 0
    listed = list_annotations(world.meta, request.text("model"), request.number("number"), after=after)
    return {"annotations": [remark.to_dict() for remark in listed]}


def find_models(request: Request) -> dict[str, Any]:
    """Find models."""
    return search_models(world.meta, read_query(request.body(*FIELDS)), request.readable).to_dict()


def find_versions(request: Request) -> dict[str, Any]:
    """Find versions."""
    return search_versions(world.meta, read_query(request.body(*FIELDS)), request.readable).to_dict()


def rollout(request: Request) -> Answer:
    """Show what stands beside the deployed version, and what was seen of it."""
    shown = show_rollouts(world.meta, request.text("model"), request.query_text("environment", "production"))
    return Answer(shown, rev=shown["rev"])


def versions(request: Request) -> dict[str, Any]:
    """List the versions of a model."""
    page = request.page()
    listed = browse.list_versions(world.meta, request.text("model"), page)
    return page.answer("versions", listed, lambda row: f"{row['number']:09d}")


def version(request: Request) -> Answer:
    """Show a version."""
    shown = browse.show_version(world.meta, world.store, request.text("model"), request.number("number"))
    return Answer(shown, rev=shown["rev"])


def packet(request: Request) -> dict[str, Any]:
    """Show the packet that a decision on a version, or with `promotion` on its promotion to an environment, rests on."""
    model, number, environment = request.text("model"), request.number("number"), request.query_text("promotion", "")
    if environment:
        shown = show_promotion_packet(world.meta, world.store, model, number, environment)
    else:
        shown = show_packet(world.meta, world.store, model, number)
    world.audit.allowed(request, "packet.read", _reference(request))
    return shown


def diff(request: Request) -> dict[str, Any]:
    """Show what differs between two versions."""
    before, after = request.query_number("from"), request.query_number("to")
    return {"from": before, "to": after, "differences": browse.diff_versions(world.meta, world.store, request.text("model"), before, after)}


def refreshes(request: Request) -> dict[str, Any]:
    """Show what is known of a model's refreshes."""
    return show_refreshes(world.meta, request.text("model"))


def logs(request: Request) -> dict[str, Any]:
    """Show the log of a stage."""
    return browse.read_log(world.meta, world.store, request.text("model"), request.number("number"), request.query_text("stage"))


def data(request: Request) -> dict[str, Any]:
    """List the files of a data set."""
    by = caller(request, world.settings)
    name = request.query_text("set")
    listed = browse.list_data(world.meta, world.store, request.text("model"), request.number("number"), name, by=by)
    world.audit.allowed(request, "data.read", f"{_reference(request)}/{name}")
    return listed


def files(request: Request) -> dict[str, Any]:
    """List the frozen files of a version."""
    listed = browse.list_files(world.meta, world.store, request.text("model"), request.number("number"))
    world.audit.allowed(request, "files.read", _reference(request))
    return listed


def trace(request: Request) -> dict[str, Any]:
    """Trace a prediction; a deep trace is proven too, as far as the ledger has come."""
    deep = request.query_flag("deep")
    today = world.delegator.public_key_der
    traced = trace_prediction(world.meta, world.store, request.text("id"), delegator_key=today, former_key=_former_delegator, deep=deep)
    request.require(str(traced["version"]["model"]["value"]))
    if deep:
        # The verifier's libraries are wanted here alone, and no other read waits for their import.
        from attestry.usecases.prove import add_proof, prove_prediction

        traced = add_proof(traced, prove_prediction(world.meta, world.store, request.text("id"), world.clock.now()))
    world.audit.allowed(request, "prediction.trace", request.text("id"))
    return traced


def _former_delegator(name: str, at: str) -> bytes:
    """Return the public key of the delegator of then, as the published root of trust has it."""
    from attestry.usecases.root import show_root

    published = show_root(world.meta, world.store)
    if published is None:
        raise IntegrityError("another key than today's signed the delegation, and no root of trust is published that would name it")
    return published.verified.trusted_root.delegator(name, at).der


def lineage(request: Request) -> dict[str, Any]:
    """Walk the lineage from a node."""
    direction, depth = request.query_text("direction", "both"), request.query_number("depth", MAX_DEPTH)
    return LineageWalker(world.meta, world.store).walk(request.query_text("node"), direction=direction, depth=depth).to_item()


def compliance(request: Request) -> dict[str, Any]:
    """Review the lineage and the evidence of what is deployed."""
    from attestry.usecases.compliance import review_deployed  # with the verifier's libraries, as above

    return review_deployed(world.meta, world.store, world.clock.now(), after=request.query_text("after", ""))


def findings(request: Request) -> dict[str, Any]:
    """List what reconciliation found and nobody has mended; of one model, a page holds those of its rows that are the model's."""
    page, model = request.page(), request.query.get("model")
    listed = page.answer("findings", list_findings(world.meta, page), place_of)
    return {**listed, "findings": [f for f in listed["findings"] if not model or f["model"] == model]}


def ledger_file(request: Request) -> dict[str, Any]:
    """Read a published file of the ledger."""
    return read_file(world.store, request.query_text("path"))


def audit_batches(request: Request) -> dict[str, Any]:
    """List the batches of audited acts."""
    by = caller(request, world.settings)
    return list_batches(world.meta, world.store, by=by, since=request.query_text("since", ""), page=request.page())


def audit_batch(request: Request) -> dict[str, Any]:
    """Show where a batch of audited acts can be read."""
    shown = show_batch(world.meta, world.store, request.number("number"), by=caller(request, world.settings))
    world.audit.allowed(request, "audit.read", f"audit/{request.number('number')}")
    return shown


def policies(request: Request) -> dict[str, Any]:
    """List the policies in force; there are few, and all are read."""
    page = request.page()
    listed = [edition.to_item() for edition in policies_in_force(world.meta) if edition.policy.name > (page.after or "")]
    return page.answer("policies", listed, lambda row: str(row["name"]))


def policy(request: Request) -> Answer:
    """Show the editions of a policy."""
    page = request.page()
    listed = [edition.to_item() for edition in list_editions(world.meta, request.text("policy"), page)]
    return Answer(page.answer("editions", listed, edition_place), rev=number_in_force(world.meta, request.text("policy")))


def policy_replay(request: Request) -> dict[str, Any]:
    """Judge promotions of the past by a policy, published or not."""
    body = request.body("document", "since", "after")
    asked, since, after = Policy.from_mapping(read_document(body.get("document"))), read_since(body.get("since")), body.get("after") or ""
    found, following = replay_promotions(world.meta, world.store, asked, since=since, after=str(after))
    return {"promotions": [one.to_item() for one in found], "next": following}


ROUTES = {
    "GET /v1/me": me,
    "GET /v1/models": models,
    "GET /v1/models/{model}": model,
    "GET /v1/models/{model}/refreshes": refreshes,
    "GET /v1/models/{model}/aliases": aliases,
    "GET /v1/models/{model}/versions/{number}/labels": labels,
    "GET /v1/models/{model}/versions/{number}/annotations": remarks,
    "POST /v1/search/models": find_models,
    "POST /v1/search/versions": find_versions,
    "GET /v1/models/{model}/rollout": rollout,
    "GET /v1/models/{model}/versions": versions,
    "GET /v1/models/{model}/versions/{number}": version,
    "GET /v1/models/{model}/versions/{number}/packet": packet,
    "GET /v1/models/{model}/versions/{number}/logs": logs,
    "GET /v1/models/{model}/versions/{number}/data": data,
    "GET /v1/models/{model}/versions/{number}/files": files,
    "GET /v1/models/{model}/diff": diff,
    "GET /v1/predictions/{id}/trace": trace,
    "GET /v1/findings": findings,
    "GET /v1/policies": policies,
    "GET /v1/policies/{policy}": policy,
    "POST /v1/policy-replay": policy_replay,
    "GET /v1/lineage": lineage,
    "GET /v1/compliance": compliance,
    "GET /v1/ledger/file": ledger_file,
    "GET /v1/ledger/audit": audit_batches,
    "GET /v1/ledger/audit/{number}": audit_batch,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))


def _reference(request: Request) -> str:
    return f"{request.text('model')}@{request.number('number')}"
