"""Deployments: the swap is atomic, needs an approval, and keeps the version before for rollback."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from attestry.domain.errors import AttestryError, ConflictError, IntegrityError, NotFoundError, StageFailedError, UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import EnvironmentRef, FileRef
from attestry.usecases.attest import Attestor
from attestry.usecases.deploy import begin_deployment, fail_deployment, roll_back, swap_pointer
from attestry.usecases.readiness import check_frozen_files, warm
from attestry.usecases.records import load_version, pointer_key
from tests.fakes import Faults, LocalSigner, MemoryFunctions, MemoryMetaStore, MemoryObjectStore
from tests.versions import AT, ATTESTOR, ERIN, make_approved, make_version

MODEL = "credit-risk"


@pytest.fixture
def meta() -> MemoryMetaStore:
    return MemoryMetaStore()


def put_in_place(meta, number, attestor=ATTESTOR, **kwargs):
    facts = {"environment": "production", "capture_rate": "1", "by": ERIN, "reason": "approved", "at": AT}
    return swap_pointer(meta, attestor, MODEL, number, **facts, **kwargs)


def latest_transition(meta, number):
    return meta.query(f"VERSION#{MODEL}#{number}", prefix="TRANSITION#", newest_first=True, limit=1)[0]


def standings(meta, *numbers):
    return [load_version(meta, MODEL, n).standing for n in numbers]


def assert_one_deployed(meta, numbers):
    """Invariant 4: the pointer and exactly one version agree, and the one before is kept."""
    pointer = meta.get(pointer_key(MODEL, "production"))
    deployed = [n for n in numbers if load_version(meta, MODEL, n).standing is Standing.DEPLOYED]
    assert deployed == ([pointer["number"]] if pointer else [])
    kept = [n for n in numbers if load_version(meta, MODEL, n).standing is Standing.ROLLBACK]
    assert kept == ([pointer["previous"]] if pointer and pointer["previous"] is not None else [])


def test_the_first_deployment_sets_the_pointer(meta):
    version = make_approved(meta, 1)
    deployment = put_in_place(meta, 1)
    assert deployment.changed
    assert meta.get(pointer_key(MODEL, "production"))["version_digest"] == version.version_digest
    assert standings(meta, 1) == [Standing.DEPLOYED]


def test_the_version_before_is_kept_for_rollback_and_the_one_before_that_released(meta):
    for number in (1, 2, 3):
        make_approved(meta, number)
        put_in_place(meta, number)
        assert_one_deployed(meta, range(1, number + 1))
    assert standings(meta, 1, 2, 3) == [Standing.APPROVED, Standing.ROLLBACK, Standing.DEPLOYED]


def test_a_rollback_swaps_the_two_and_is_undone_only_by_name(meta):
    for number in (1, 2):
        make_approved(meta, number)
        put_in_place(meta, number)
    roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="worse in production", at=AT)
    assert standings(meta, 1, 2) == [Standing.DEPLOYED, Standing.ROLLBACK]
    with pytest.raises(ConflictError, match="--to 2"):
        roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="it was the network", at=AT)
    assert standings(meta, 1, 2) == [Standing.DEPLOYED, Standing.ROLLBACK]
    roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="it was the network", at=AT, to=2)
    assert standings(meta, 1, 2) == [Standing.ROLLBACK, Standing.DEPLOYED]
    kinds = [t["kind"] for t in meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#")]
    assert kinds[-2:] == ["version.rolled_back", "version.replaced"]


def test_a_rollback_brings_back_the_capture_rate_that_the_version_had(meta):
    make_approved(meta, 1)
    make_approved(meta, 2)
    swap_pointer(meta, ATTESTOR, MODEL, 1, environment="production", capture_rate="0.25", by=ERIN, reason="first", at=AT)
    swap_pointer(meta, ATTESTOR, MODEL, 2, environment="production", capture_rate="1", by=ERIN, reason="second", at=AT)
    roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="back", at=AT)
    assert meta.get(pointer_key(MODEL, "production"))["capture_rate"] == "0.25"


def test_a_rollback_to_a_named_version_is_done_once_however_often_it_is_asked_for(meta):
    for number in (1, 2):
        make_approved(meta, number)
        put_in_place(meta, number)
    back = {"environment": "production", "by": ERIN, "reason": "worse in production", "at": AT}
    assert roll_back(meta, ATTESTOR, MODEL, to=1, **back).changed
    assert not roll_back(meta, ATTESTOR, MODEL, to=1, **back).changed
    assert standings(meta, 1, 2) == [Standing.DEPLOYED, Standing.ROLLBACK]
    with pytest.raises(NotFoundError, match="no version credit-risk@3"):
        roll_back(meta, ATTESTOR, MODEL, to=3, **back)


def test_a_rollback_may_lead_to_any_approved_version_of_the_environment_and_to_no_other(meta):
    for number in (1, 2, 3):
        make_approved(meta, number)
        put_in_place(meta, number)
    back = {"environment": "production", "by": ERIN, "reason": "worse in production", "at": AT}
    assert roll_back(meta, ATTESTOR, MODEL, to=1, **back).changed
    assert standings(meta, 1, 2, 3) == [Standing.DEPLOYED, Standing.APPROVED, Standing.ROLLBACK]
    make_version(meta, number=4, stage=Stage.APPROVAL, standing=Standing.CANDIDATE)
    with pytest.raises(ConflictError, match="not approved"):
        roll_back(meta, ATTESTOR, MODEL, to=4, **back)
    make_approved(meta, 5, deployment_environment="staging")
    with pytest.raises(ConflictError, match="belongs to staging"):
        roll_back(meta, ATTESTOR, MODEL, to=5, **back)


def test_without_a_version_before_there_is_nothing_to_roll_back_to(meta):
    with pytest.raises(NotFoundError, match="no version"):
        roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="r", at=AT)
    make_approved(meta, 1)
    put_in_place(meta, 1)
    with pytest.raises(NotFoundError, match="kept for rollback"):
        roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="r", at=AT)


@pytest.mark.parametrize("standing", [Standing.CANDIDATE, Standing.REJECTED, Standing.RETIRED])
def test_a_version_without_approval_is_never_put_in_place(meta, standing):
    make_version(meta, stage=Stage.APPROVAL, standing=standing, approved=standing is Standing.RETIRED)
    with pytest.raises(ConflictError, match=r"not approved|retired"):
        put_in_place(meta, 1)
    assert meta.get(pointer_key(MODEL, "production")) is None


def test_a_standing_alone_is_no_approval(meta):
    """A row edited to stand APPROVED without the approvals is refused."""
    make_version(meta, stage=Stage.APPROVAL, standing=Standing.APPROVED, approved=False)
    with pytest.raises(ConflictError):
        put_in_place(meta, 1)


def test_the_same_deployment_again_changes_nothing(meta):
    make_approved(meta, 1)
    put_in_place(meta, 1)
    before = load_version(meta, MODEL, 1)
    again = put_in_place(meta, 1)
    assert not again.changed
    assert load_version(meta, MODEL, 1) == before


def test_sixteen_deployments_at_once_leave_one_deployed_and_one_kept(meta):
    numbers = range(1, 17)
    for number in numbers:
        make_approved(meta, number)

    def one(number: int) -> bool:
        try:
            return put_in_place(meta, number).changed
        except AttestryError:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert any(pool.map(one, random.Random(7).sample(list(numbers), 16)))
    assert_one_deployed(meta, numbers)


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_deployment_cut_off_at_any_call_is_finished_by_a_retry(kind):
    tried = 0
    for point in range(1, 60):
        faults = Faults()
        meta, store = MemoryMetaStore(faults), MemoryObjectStore(faults)
        attestor = Attestor(LocalSigner(faults=faults), store)
        for number in (1, 2, 3):
            make_approved(meta, number)
        put_in_place(meta, 1)
        put_in_place(meta, 2)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            put_in_place(meta, 3, attestor)
        except UnavailableError:
            tried += 1
            assert_one_deployed(meta, (1, 2, 3))
            put_in_place(meta, 3, attestor)
        else:
            break
        assert standings(meta, 1, 2, 3) == [Standing.APPROVED, Standing.ROLLBACK, Standing.DEPLOYED]
        kept = {key.rpartition("/")[2].removesuffix(".json") for key in store.versions}
        assert {latest_transition(meta, n)["attestation"]["sha256"] for n in (1, 2, 3)} <= kept
    assert tried >= 5 + 3 * 2


def test_a_deployment_that_fails_leaves_the_pointer_and_names_the_error(meta):
    for number in (1, 2):
        make_approved(meta, number)
    put_in_place(meta, 1)
    begin_deployment(meta, ATTESTOR, load_version(meta, MODEL, 2), by=ERIN, reason="go", at=AT)
    fail_deployment(meta, ATTESTOR, MODEL, 2, by=ERIN, error="does not load", at=AT)
    version = load_version(meta, MODEL, 2)
    assert (version.stage, version.status, version.error) == (Stage.DEPLOYMENT, Status.FAILED, "does not load")
    assert meta.get(pointer_key(MODEL, "production"))["number"] == 1
    begin_deployment(meta, ATTESTOR, version, by=ERIN, reason="again", at=AT)
    assert put_in_place(meta, 2).changed


def frozen_version(meta, store):
    folder = f"models/{MODEL}/1-{'0' * 40}-{MODEL}-1-1-{'01' * 6}"
    kept = [
        store.put_new(f"{folder}/frozen/{p}", p.encode(), retain=True) for p in ("model/a.bin", "manifest.json", "artifact-manifest.json")
    ]
    refs = [FileRef(k.key.removeprefix(f"{folder}/frozen/"), k.key, k.version_id, k.size, k.sha256) for k in kept]
    environment = EnvironmentRef("e", "00" * 32, "3.13", "p", refs[0])
    return make_approved(meta, 1, frozen=tuple(refs[:2]), artifact=refs[2], environment=environment, inference_script="inference.py")


def test_files_as_recorded_pass(meta):
    store = MemoryObjectStore()
    check_frozen_files(store, frozen_version(meta, store))


@pytest.mark.parametrize("attack", ["overwrite", "delete", "add"])
def test_a_changed_frozen_folder_is_refused_and_the_file_named(meta, attack):
    store = MemoryObjectStore()
    version = frozen_version(meta, store)
    key = version.frozen[0].key
    if attack == "overwrite":
        store.put(key, b"other weights")
    elif attack == "delete":
        store.delete(key)
    else:
        store.put(f"{version.folder}/frozen/model/extra.bin", b"more")
    with pytest.raises(IntegrityError, match=r"extra\.bin" if attack == "add" else r"a\.bin"):
        check_frozen_files(store, version)


def test_warming_goes_on_while_the_version_loads(meta):
    store = MemoryObjectStore()
    version = frozen_version(meta, store)
    answers = iter([{"status": "LOADING"}, {"status": "LOADING"}, {"status": "READY"}])
    functions = MemoryFunctions({"inference": lambda payload: next(answers)})
    warm(functions, store, version, inference="inference", seconds=60)
    assert [tenant for _, _, tenant in functions.called] == [version.execution_id] * 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": "REFUSED", "error": "model/a.bin differs"}, IntegrityError),
        ({"status": "FAILED", "error": "no model_fn"}, StageFailedError),
    ],
)
def test_a_version_that_does_not_load_is_not_deployed(meta, answer, error):
    store = MemoryObjectStore()
    version = frozen_version(meta, store)
    with pytest.raises(error, match=answer["error"]):
        warm(MemoryFunctions({"inference": lambda payload: answer}), store, version, inference="inference", seconds=60)


def test_a_version_that_never_gets_ready_fails_in_time(meta):
    store = MemoryObjectStore()
    version = frozen_version(meta, store)
    ticks = iter(range(0, 1000, 10))
    with pytest.raises(StageFailedError, match="not loaded within 30 s"):
        warm(MemoryFunctions({"i": lambda p: {"status": "LOADING"}}), store, version, inference="i", seconds=30, clock=lambda: next(ticks))
