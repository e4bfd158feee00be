"""Endpoints: bring SageMaker to serve the versions that stand in an environment, and the one that is on its way there, and no others.

Rules:
- What an endpoint is to be is worked out anew at each look: from the pointer, and from the versions' manifests as they were registered and
  frozen (`attestry.domain.endpoints`). A look does one step and comes back later, so it can be cut off anywhere and done twice.
- A version has its variant before it is put in place, and keeps it as long as a pointer names it: deployed, kept for rollback, canary or
  shadow. One that was killed, retired or released loses its variant by the next look that finds SageMaker at rest.
- Models and configurations are noted before they are made, and removed once no plan has them.
- What stands under a name already is compared with what would have been asked for; where it differs, nothing is served from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.endpoints import (
    OUT,
    SAGEMAKER,
    EndpointPlan,
    EndpointSettings,
    EndpointState,
    Step,
    Variant,
    differences,
    foreign_parts,
    next_step,
    plan_endpoint,
)
from attestry.domain.errors import AttestryError, ConditionFailedError, ConflictError, IntegrityError, StageFailedError
from attestry.domain.manifest_sections import Endpoint
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.digests import sha256_hex
from attestry.ports import Check, Delete, Endpoints, Item, MetaStore, ObjectStore, Put
from attestry.usecases.endpoint_rows import PARTITION, endpoint_key, unchanged
from attestry.usecases.manifests import load_manifest
from attestry.usecases.pointer import named_in
from attestry.usecases.records import load_version, pointer_key

TRIES: Final = 8
MAX_COMING: Final = 4
"""Versions on their way into one environment at once; with those that stand there they fit one endpoint."""


@dataclass(frozen=True)
class Coming:
    """A deployment on its way: who asked for it, why, and how.

    Attributes:
        number: the version's number.
        environment: where it is to stand.
        by: who.
        reason: why.
        strategy: how, where another way than the manifest's was asked for.
    """

    number: int
    environment: str
    by: Principal
    reason: str
    strategy: str | None = None

    def to_item(self) -> Item:
        """Return the deployment as the row has it."""
        return {"by": self.by.to_item(), "reason": self.reason, **({"strategy": self.strategy} if self.strategy else {})}

    @classmethod
    def from_item(cls, number: int, environment: str, item: Mapping[str, Any]) -> Coming:
        """Return the deployment that a row tells of."""
        return cls(number, environment, Principal.from_item(item["by"]), str(item["reason"]), item.get("strategy"))


class EndpointKeeper:
    """Keeps endpoints as they are to be."""

    def __init__(self, meta: MetaStore, store: ObjectStore, endpoints: Endpoints, settings: EndpointSettings, prefix: str) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store.
            endpoints: SageMaker's.
            settings: what the deployment says about endpoints.
            prefix: what the names of endpoints begin with.
        """
        self._meta = meta
        self._store = store
        self._endpoints = endpoints
        self._settings = settings
        self._prefix = prefix
        self._asked: dict[str, Endpoint] = {}

    def bring(self, version: Version, coming: Coming) -> bool:
        """Do the next step towards a variant of a version; the same again goes on.

        Returns:
            Whether SageMaker serves it. Where not, a later look goes on by itself.

        Raises:
            ConflictError: SageMaker serves no versions of the model here, or too many are on their way.
            StageFailedError: SageMaker does not take it, or it does not start.
            IntegrityError: something else stands under a name that is ours.
            UnavailableError: SageMaker did not answer.
        """
        if version.target != SAGEMAKER or version.model not in self._settings.models:
            raise ConflictError(f"{version.reference} is to be served by {version.target}, which this registry does not do for its model")
        self._note(version, coming)
        return self.look(version.model, coming.environment) is Step.READY

    def let_go(self, model: str, environment: str, number: int) -> None:
        """Forget that a version is on its way: it stands, or it will not."""
        for _ in range(TRIES):
            row = self._meta.get(endpoint_key(model, environment))
            if row is None or str(number) not in row.get("coming", {}):
                return
            coming = {n: told for n, told in row["coming"].items() if n != str(number)}
            if self._write(row, {"coming": coming}):
                return
        raise ConflictError(f"the endpoint of {model} in {environment} is being changed by others; try again")

    def coming(self) -> list[tuple[str, Coming]]:
        """Return all deployments on their way, each with its model."""
        rows = self._meta.query(PARTITION)
        return [
            (str(row["model"]), Coming.from_item(int(number), str(row["environment"]), told))
            for row in rows
            for number, told in sorted(row.get("coming", {}).items(), key=lambda item: int(item[0]))
        ]

    def watch(self, on_trouble: Callable[[str, str], None]) -> dict[str, int]:
        """Look at every endpoint once; the trouble of one does not hold up the others.

        Args:
            on_trouble: told `model/environment` and what is wrong.

        Returns:
            How many endpoints were looked at, by what was done.
        """
        done: dict[str, int] = {}
        for row in self._meta.query(PARTITION):
            model, environment = str(row["model"]), str(row["environment"])
            try:
                step = self.look(model, environment).value
            except AttestryError as error:
                on_trouble(f"{model}/{environment}", error.message)
                step = Step.FAILED.value
            done[step] = done.get(step, 0) + 1
        return done

    def look(self, model: str, environment: str) -> Step:
        """Do the next step with an endpoint, and return which that was.

        Raises:
            StageFailedError: SageMaker took an update back, or made no endpoint, with its reason.
            IntegrityError: something else stands under a name that is ours, or runs.
            UnavailableError: SageMaker did not answer.
            ConflictError: others keep changing pointer or row.
        """
        for _ in range(TRIES):
            row = self._meta.get(endpoint_key(model, environment))
            if row is None:
                return Step.GONE
            pointer = self._meta.get(pointer_key(model, environment))
            plan = self._plan(model, environment, row, pointer)
            state = self._endpoints.state(plan.name)
            step = next_step(plan, state, str(row.get("asked", "")))
            if self._do(step, row, pointer, plan, state):
                return step
        raise ConflictError(f"the endpoint of {model} in {environment} is being changed by others; try again")

    def _do(self, step: Step, row: Item, pointer: Item | None, plan: EndpointPlan, state: EndpointState | None) -> bool:
        """Do a step; False where the row or the pointer has changed meanwhile."""
        if step is Step.READY and state is not None:
            return self._confirm(row, plan, state)
        if step in (Step.CREATE, Step.UPDATE):
            return self._change(step, row, pointer, plan)
        if step is Step.GONE:
            return self._clear(row, pointer)
        if step in (Step.DELETE, Step.FAILED) and state is not None:
            return self._give_up(step, row, pointer, plan, state)
        return True

    def _give_up(self, step: Step, row: Item, pointer: Item | None, plan: EndpointPlan, state: EndpointState) -> bool:
        """Remove an endpoint that serves nothing, and tell what failed; what is asked for from then on is asked for anew."""
        served = {"serves": []} if state.status in OUT else self._narrowed(row, plan)
        if not self._write(row, {**served, "asked": ""}, pointer):
            return False
        if step is Step.DELETE or state.status in OUT:
            self._endpoints.remove_endpoint(plan.name)
        if step is Step.FAILED:
            why = state.reason or "SageMaker gives no reason"
            raise StageFailedError(f"the endpoint {plan.name} does not come to serve what it is to: {why}")
        return True

    def _plan(self, model: str, environment: str, row: Item, pointer: Item | None) -> EndpointPlan:
        numbers = sorted({*(named_in(pointer) if pointer else ()), *map(int, row.get("coming", {}))})
        versions = [load_version(self._meta, model, number) for number in numbers]
        served = [v for v in versions if v.target == SAGEMAKER and v.version_digest and v.standing is not Standing.RETIRED]
        return plan_endpoint(self._settings, self._prefix, model, environment, [Variant(v, self._asked_by(v)) for v in served])

    def _asked_by(self, version: Version) -> Endpoint:
        """Return what a version's manifest says about its endpoint: the one that its artifact manifest names, whatever a row says."""
        known = self._asked.get(version.version_digest)
        if known is not None:
            return known
        if version.artifact is None:
            raise ConflictError(f"{version.reference} has no frozen artifact yet")
        raw = self._store.read(version.artifact.key, version.artifact.version_id, max_bytes=version.artifact.size)
        if sha256_hex(raw) != version.version_digest or ArtifactManifest.from_bytes(raw).candidate != version.candidate:
            raise IntegrityError(f"{version.reference} was made of another candidate than its row names")
        asked = load_manifest(self._store, version).deployment.endpoint
        if asked is None:
            raise IntegrityError(f"the manifest of {version.reference} names no endpoint")
        self._asked[version.version_digest] = asked
        return asked

    def _change(self, step: Step, row: Item, pointer: Item | None, plan: EndpointPlan) -> bool:
        """Make what the plan names and have the endpoint run it; what loses its variant is no longer served from before that on."""
        configs, models = sorted({*row.get("made_configs", []), plan.config}), sorted({*row.get("made_models", []), *plan.models})
        noted = {"made_configs": configs, "made_models": models, **self._narrowed(row, plan)}
        if step is Step.CREATE:
            noted |= {"serves": []}
        if not self._write(row, noted, pointer):
            return False
        self._make(plan)
        if step is Step.CREATE:
            taken = self._endpoints.make_endpoint(plan.name, plan.config, plan.request["Tags"])
        else:
            taken = self._endpoints.update_endpoint(plan.name, plan.config)
        if taken:
            # Noted after it was asked for: cut off before, it is asked for once more; noted before, it might never be.
            row = self._meta.get(endpoint_key(str(row["model"]), str(row["environment"]))) or row
            self._write(row, {"asked": plan.config})
        return True

    def _make(self, plan: EndpointPlan) -> None:
        for name, request in plan.models.items():
            if self._endpoints.model(name) is None:
                self._endpoints.make_model(request)
        if self._endpoints.config(plan.config) is None:
            self._endpoints.make_config(plan.request)
        self._verify(plan)

    def _verify(self, plan: EndpointPlan) -> None:
        """Check that what stands under the names of a plan is what the plan would ask for.

        Raises:
            IntegrityError: naming what differs.
        """
        for name, request in plan.models.items():
            told = self._endpoints.model(name)
            wrong = ["it is gone"] if told is None else [*differences(dict(request), told), *foreign_parts(told)]
            if wrong:
                raise IntegrityError(f"the model {name} in SageMaker is not what the registry makes: {', '.join(wrong)}")
        told = self._endpoints.config(plan.config)
        wrong = ["it is gone"] if told is None else differences(dict(plan.request), told)
        if wrong:
            raise IntegrityError(f"the configuration {plan.config} in SageMaker is not what the registry makes: {', '.join(wrong)}")

    def _confirm(self, row: Item, plan: EndpointPlan, state: EndpointState) -> bool:
        """Take an endpoint for ready once what runs is what was asked for, and remove what no plan has any more."""
        missing = [name for name, image in plan.images.items() if set(state.images.get(name, ())) != {image}]
        if missing:
            raise IntegrityError(f"the endpoint {plan.name} runs {', '.join(missing)} from another image than its manifest names")
        changes: Item = {"serves": list(plan.numbers), "seen": state.modified, "asked": plan.config}
        if all(row.get(name) == value for name, value in changes.items()) and not _stale(row, plan):
            return True
        # Looked at again after each change of the endpoint, whoever made it.
        self._verify(plan)
        for config in sorted(set(row.get("made_configs", [])) - {plan.config}):
            self._endpoints.remove_config(config)
        for model in sorted(set(row.get("made_models", [])) - set(plan.models)):
            self._endpoints.remove_model(model)
        return self._write(row, {**changes, "made_configs": [plan.config], "made_models": sorted(plan.models)})

    def _clear(self, row: Item, pointer: Item | None) -> bool:
        """Remove what is left of an endpoint that is gone, and its row; nothing stands on it and nothing comes."""
        for config in row.get("made_configs", []):
            self._endpoints.remove_config(str(config))
        for model in row.get("made_models", []):
            self._endpoints.remove_model(str(model))
        if row.get("coming"):
            return True
        key = endpoint_key(str(row["model"]), str(row["environment"]))
        place = pointer_key(str(row["model"]), str(row["environment"]))
        try:
            self._meta.transact([Delete(key, unchanged(row)), Check(place, unchanged(pointer))])
        except ConditionFailedError:
            return False
        return True

    def _narrowed(self, row: Item, plan: EndpointPlan) -> Item:
        return {"serves": [int(n) for n in row.get("serves", []) if int(n) in plan.numbers]}

    def _note(self, version: Version, coming: Coming) -> None:
        """Note that a version is on its way, and who asked for it last: the pipeline asks again and again, and takes no person's place."""
        key = endpoint_key(version.model, coming.environment)
        for _ in range(TRIES):
            row = self._meta.get(key)
            known: Mapping[str, Any] = (row or {}).get("coming", {})
            there = known.get(str(version.number))
            if there == coming.to_item() or (there is not None and coming.by == registry_principal("pipeline")):
                return
            if there is None and len(known) >= MAX_COMING:
                raise ConflictError(f"{len(known)} versions of {version.model} are on their way to {coming.environment} already")
            told = {**known, str(version.number): coming.to_item()}
            fresh = {"model": version.model, "environment": coming.environment, "rev": 0}
            if self._write(row or fresh, {"coming": told}, new=row is None):
                return
        raise ConflictError(f"the endpoint of {version.model} in {coming.environment} is being changed by others; try again")

    def _write(self, row: Item, changes: Mapping[str, Any], pointer: Item | bool | None = False, *, new: bool = False) -> bool:
        """Write a row as it was read with changes; False where it, or the pointer if one is named, is another by now."""
        key = endpoint_key(str(row["model"]), str(row["environment"]))
        told = {name: value for name, value in row.items() if name not in ("pk", "sk")}
        writes: list[Any] = [Put(key, {**told, **changes, "rev": int(row["rev"]) + 1}, unchanged(None if new else row))]
        if not isinstance(pointer, bool):
            writes.append(Check(pointer_key(str(row["model"]), str(row["environment"])), unchanged(pointer)))
        try:
            self._meta.transact(writes)
        except ConditionFailedError:
            return False
        return True


def _stale(row: Item, plan: EndpointPlan) -> bool:
    """Return whether something was made that the plan has not."""
    return bool(set(row.get("made_configs", [])) - {plan.config} or set(row.get("made_models", [])) - set(plan.models))
