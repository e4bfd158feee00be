"""Deployment to SageMaker: a variant for each version that stands, made before the swap, removed behind it, gone on with after a crash."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.endpoints import EndpointSettings, endpoint_name, variant_name
from attestry.domain.errors import ConflictError, IntegrityError
from attestry.domain.rollout import Plan
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import FileRef, Version
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile, ManifestEnvironment
from attestry.evidence.digests import sha256_hex
from attestry.ports import Put, When
from attestry.usecases.deploy import begin_deployment, roll_back
from attestry.usecases.endpoint_rows import PARTITION, endpoint_key
from attestry.usecases.records import load_version, pointer_key, version_key
from attestry.usecases.revoke import kill_version
from attestry.usecases.rollout import halt_rollout
from lambdas import deploy
from tests.endpoint_service import RefusedError, SageMaker
from tests.fakes import Faults, FixedClock, Killed, MemoryAlarms, MemoryFunctions, MemoryMetaStore, MemoryObjectStore
from tests.unit.manifest_samples import COMPLETE, read
from tests.versions import AT, ATTESTOR, ERIN, FRANK, make_approved

MODEL, ENVIRONMENT = "credit-risk", "production"
NAME = endpoint_name("attestry", MODEL, ENVIRONMENT)
SETTINGS = EndpointSettings(
    models=(MODEL,),
    store="store-bucket",
    scratch="scratch-bucket",
    role_prefix="arn:aws:iam::123456789012:role/attestry-serve-",
    capture_kms_key="arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
)
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving@sha256:"


class Scene:
    """Approved versions that ask for SageMaker, and the deploy function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults = Faults()
        self.meta, self.store = MemoryMetaStore(self.faults), MemoryObjectStore(self.faults)
        self.sagemaker = SageMaker(self.faults)
        told = {"ATTESTRY_ENDPOINTS": "{}", "ATTESTRY_INFERENCE_FUNCTION": "inference", "ATTESTRY_PREFIX": "attestry"}
        self.world = World(Settings(told))
        functions = MemoryFunctions({"inference": lambda _: {"status": "READY"}}, self.faults)
        self.world.__dict__.update(
            meta=self.meta,
            store=self.store,
            functions=functions,
            attestor=ATTESTOR,
            alarms=MemoryAlarms(),
            clock=FixedClock(AT),
            endpoints=self.sagemaker.control,
        )
        monkeypatch.setattr(deploy, "world", self.world)
        monkeypatch.setattr(Settings, "endpoints", SETTINGS)
        deploy.keeper.cache_clear()

    def approve(self, number: int, *, environment: str = ENVIRONMENT, **endpoint: Any) -> Version:
        """Make an approved version whose manifest asks for an endpoint."""
        asked = {"container": IMAGE + f"{number:02x}" * 32, "instance": "ml.m7i.xlarge", **endpoint}
        mapping = copy.deepcopy(COMPLETE)
        mapping["deployment"] = {"environment": environment, "target": "sagemaker", "endpoint": asked}
        raw = read(mapping).canonical_bytes
        stored = self.store.put_new(f"registered/{sha256_hex(raw)}/manifest.json", raw)
        manifest = FileRef("manifest.json", stored.key, stored.version_id, stored.size, stored.sha256)
        folder = f"models/{MODEL}/{number}-{'0' * 40}-e{number}"
        files = {"manifest.json": raw, "model/model.joblib": f"model {number}".encode()}
        artifact = ArtifactManifest(
            model=MODEL,
            number=number,
            execution_id=f"e{number}",
            candidate=sha256_hex(raw),
            source=(),
            training="ef" * 32,
            holdout="01" * 32,
            environment=ManifestEnvironment("env", "23" * 32, "45" * 32, "3.13"),
            files=tuple(FrozenFile(path, len(body), sha256_hex(body)) for path, body in files.items()),
        )
        document = artifact.to_bytes()
        frozen = [self._freeze(folder, path, body) for path, body in {**files, "artifact-manifest.json": document}.items()]
        return make_approved(
            self.meta,
            number,
            candidate=sha256_hex(raw),
            manifest=manifest,
            folder=folder,
            version_digest=sha256_hex(document),
            artifact=frozen.pop(),
            frozen=tuple(frozen),
            target="sagemaker",
            inference_script="inference.py",
            deployment_environment=environment,
        )

    def _freeze(self, folder: str, path: str, body: bytes) -> FileRef:
        stored = self.store.put_new(f"{folder}/frozen/{path}", body, retain=True)
        return FileRef(path, stored.key, stored.version_id, stored.size, stored.sha256)

    def ask(self, number: int, **event: Any) -> str:
        """Invoke the deploy function as the pipeline does."""
        return str(deploy.handler({"model": MODEL, "version": number, **event}, None)["outcome"])

    def look(self) -> dict[str, int]:
        """Do what the function does every minute."""
        looked: dict[str, int] = deploy.handler(deploy.WATCH, None)["endpoints"]
        return looked

    def go_on(self, looks: int = 6) -> None:
        """Let minutes pass."""
        for _ in range(looks):
            self.sagemaker.settle()
            self.look()

    def place(self, number: int, *, looks: int = 3, **asked: Any) -> Version:
        """Approve a version and put it in place."""
        version = self.approve(number, **asked)
        assert self.ask(number) == "WAITING"
        self.go_on(looks)
        assert self.version(number).standing is Standing.DEPLOYED
        return version

    def place_in(self, environment: str, number: int) -> Version:
        """The same in another environment."""
        return self.place(number, environment=environment)

    def version(self, number: int) -> Version:
        return load_version(self.meta, MODEL, number)

    def pointer(self) -> dict[str, Any]:
        return self.meta.get(pointer_key(MODEL, ENVIRONMENT)) or {}

    def kill(self, number: int) -> None:
        kill_version(self.meta, ATTESTOR, MODEL, number, by=FRANK, reason="it is wrong", at=AT)

    def variants(self) -> set[str]:
        return self.sagemaker.variants(NAME)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    yield Scene(monkeypatch)
    deploy.keeper.cache_clear()


def variant(version: Version) -> str:
    return variant_name(version.number, version.version_digest)


def test_a_version_is_put_in_place_once_its_variant_is_in_service_and_not_before(scene: Scene) -> None:
    version = scene.approve(1)
    assert scene.ask(1) == "WAITING"
    assert scene.ask(1, waited=True) == "WAITING"
    assert scene.pointer() == {}
    scene.sagemaker.settle()
    assert scene.ask(1, waited=True) == "SUCCEEDED"
    assert scene.pointer()["number"] == 1
    assert scene.variants() == {variant(version)}


def test_the_container_gets_the_frozen_folder_its_digest_an_image_by_digest_and_no_network(scene: Scene) -> None:
    version = scene.place(1)
    (made,) = scene.sagemaker.models.values()
    container = made["PrimaryContainer"]
    source = {"S3Uri": f"s3://store-bucket/{version.folder}/frozen/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    assert container["ModelDataSource"] == {"S3DataSource": source}
    assert container["Image"] == IMAGE + "01" * 32
    assert container["Environment"]["ATTESTRY_VERSION_DIGEST"] == version.version_digest
    assert made["EnableNetworkIsolation"] is True
    assert made["ExecutionRoleArn"] == "arn:aws:iam::123456789012:role/attestry-serve-credit-risk"


def test_subnets_keys_and_data_capture_are_passed_through(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/76543210-89ab-cdef-0123-456789abcdef"
    network = {"subnets": ("subnet-0123456789abcdef0",), "security_groups": ("sg-0123456789abcdef0",)}
    monkeypatch.setattr(Settings, "endpoints", replace(SETTINGS, volume_kms_key=key, **network))
    scene.place(1, data_capture=10, instance_count=2, startup_seconds=900)
    (made,) = scene.sagemaker.models.values()
    assert made["VpcConfig"] == {"Subnets": ["subnet-0123456789abcdef0"], "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    config = scene.sagemaker.config_of(NAME)
    assert config["KmsKeyId"] == key
    capture = config["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == 10
    assert capture["DestinationS3Uri"] == "s3://scratch-bucket/captured/credit-risk/production"
    (one,) = config["ProductionVariants"]
    assert (one["InitialInstanceCount"], one["ModelDataDownloadTimeoutInSeconds"]) == (2, 900)


def test_the_version_before_keeps_its_variant_and_the_one_before_that_loses_it(scene: Scene) -> None:
    first, second, third = (scene.place(n) for n in (1, 2, 3))
    scene.go_on()
    assert scene.variants() == {variant(second), variant(third)}
    assert variant(first) not in scene.variants()
    assert len(scene.sagemaker.models) == 2
    assert len(scene.sagemaker.configs) == 1


def test_a_rollback_works_at_once_because_the_variant_is_still_there(scene: Scene) -> None:
    scene.place(1)
    scene.place(2)
    roll_back(scene.meta, ATTESTOR, MODEL, environment=ENVIRONMENT, by=FRANK, reason="worse", at=AT)
    assert scene.pointer()["number"] == 1
    assert variant(scene.version(1)) in scene.variants()


def test_a_rollback_to_a_version_without_variant_is_refused_and_says_what_to_do(scene: Scene) -> None:
    for number in (1, 2, 3):
        scene.place(number)
    scene.go_on()
    with pytest.raises(ConflictError, match="attestry deploy credit-risk@1"):
        roll_back(scene.meta, ATTESTOR, MODEL, environment=ENVIRONMENT, by=FRANK, reason="worse", at=AT, to=1)
    assert scene.pointer()["number"] == 3


def test_a_version_comes_back_no_more_from_when_its_variant_begins_to_be_taken_away(scene: Scene) -> None:
    scene.place(1)
    scene.place(2)
    scene.place(3, looks=1)  # SageMaker is asked to take version 1 away, and has not yet
    assert scene.sagemaker.endpoints[NAME].status == "Updating"
    assert variant(scene.version(1)) in scene.variants()
    with pytest.raises(ConflictError, match="has no variant"):
        roll_back(scene.meta, ATTESTOR, MODEL, environment=ENVIRONMENT, by=FRANK, reason="worse", at=AT, to=1)


def test_a_killed_version_loses_its_variant_and_the_last_one_its_endpoint_with_all_that_was_made(scene: Scene) -> None:
    scene.place(1)
    second = scene.place(2)
    scene.kill(1)
    scene.go_on()
    assert scene.variants() == {variant(second)}
    scene.kill(2)
    scene.go_on()
    assert (scene.sagemaker.endpoints, scene.sagemaker.configs, scene.sagemaker.models) == ({}, {}, {})
    assert scene.meta.query(PARTITION) == []


def test_a_kill_while_the_endpoint_is_updated_waits_for_sagemaker_and_then_takes_the_variant_away(scene: Scene) -> None:
    first = scene.place(1)
    scene.approve(2)
    scene.ask(2)
    scene.kill(2)
    assert scene.ask(2, waited=True) == "FAILED"
    scene.look()
    assert scene.sagemaker.endpoints[NAME].status == "Updating"
    scene.go_on()
    assert scene.variants() == {variant(first)}
    assert scene.pointer()["number"] == 1
    assert scene.version(2).standing is Standing.RETIRED


def test_an_update_that_sagemaker_takes_back_fails_the_deployment_with_its_reason(scene: Scene) -> None:
    first = scene.place(1)
    scene.approve(2)
    scene.ask(2)
    scene.sagemaker.refuses = "The primary container did not pass the ping health check."
    scene.sagemaker.settle()
    scene.look()
    version = scene.version(2)
    assert (version.stage, version.status) == (Stage.DEPLOYMENT, Status.FAILED)
    assert "ping health check" in version.error
    assert scene.ask(2, waited=True) == "FAILED"
    scene.go_on()
    assert scene.variants() == {variant(first)}
    assert len(scene.sagemaker.models) == 1


def test_a_deployment_that_failed_can_be_asked_for_again(scene: Scene) -> None:
    scene.approve(1)
    scene.ask(1)
    scene.sagemaker.refuses = "no capacity"
    scene.go_on(2)
    assert scene.version(1).status is Status.FAILED
    assert scene.ask(1) == "WAITING"
    scene.go_on()
    assert scene.version(1).standing is Standing.DEPLOYED


def test_the_minutes_look_puts_it_in_place_in_the_name_of_who_asked(scene: Scene) -> None:
    scene.approve(1)
    scene.ask(1, principal=ERIN.to_item(), reason="for the launch")
    assert scene.ask(1) == "WAITING"  # the pipeline asks as well, and takes no person's place
    scene.go_on(2)
    moved = scene.meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#", newest_first=True, limit=1)[0]
    assert (moved["kind"], moved["principal"]["login"], moved["reason"]) == ("version.deployed", "erin", "for the launch")


def test_two_versions_on_their_way_at_once_both_come_and_the_later_stands(scene: Scene) -> None:
    scene.approve(1)
    scene.approve(2)
    assert [scene.ask(1), scene.ask(2)] == ["WAITING", "WAITING"]
    scene.go_on()
    assert sorted([scene.version(1).standing, scene.version(2).standing]) == [Standing.DEPLOYED, Standing.ROLLBACK]
    assert len(scene.variants()) == 2


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 19])
def test_cut_off_at_any_call_a_deployment_goes_on(monkeypatch: pytest.MonkeyPatch, every: int, *, after: bool) -> None:
    points = 0
    while True:
        scene = Scene(monkeypatch)
        first = scene.place(1)
        second = scene.approve(2)
        begin_deployment(scene.meta, ATTESTOR, scene.version(2), by=ERIN, reason="r", at=AT)
        scene.faults.clear()
        points += every
        (scene.faults.fail_after if after else scene.faults.fail_before)(points, error=Killed())
        try:
            scene.ask(2, principal=ERIN.to_item())
            scene.go_on()
        except Killed:
            scene.faults.clear()
            scene.ask(2, principal=ERIN.to_item())  # Lambda delivers the event again
            scene.go_on()
        else:
            break
        assert scene.pointer()["number"] == 2, points
        assert scene.variants() == {variant(first), variant(second)}, points
        assert len(scene.sagemaker.models) == 2, points
        assert len(scene.sagemaker.configs) == 1, points
        row = scene.meta.get(endpoint_key(MODEL, ENVIRONMENT))
        assert row is not None
        assert (row["coming"], row["serves"]) == ({}, [1, 2]), points
    assert points > 40


def test_a_model_that_somebody_else_put_under_the_name_is_not_served(scene: Scene) -> None:
    scene.approve(1)
    scene.ask(1)
    (name,) = scene.sagemaker.models
    scene.sagemaker.models[name]["PrimaryContainer"]["Image"] = IMAGE + "ee" * 32
    scene.sagemaker.settle()
    assert scene.ask(1, waited=True) == "FAILED"
    assert scene.pointer() == {}
    assert "another image" in scene.version(1).error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda made: made["PrimaryContainer"]["ModelDataSource"]["S3DataSource"].update(S3Uri="s3://elsewhere/x/"), "S3Uri"),
        (lambda made: made["PrimaryContainer"]["Environment"].update(PYTHONPATH="/opt/ml/model/x"), "PYTHONPATH"),
        (lambda made: made.update(EnableNetworkIsolation=False), "EnableNetworkIsolation"),
        (lambda made: made.update(ExecutionRoleArn="arn:aws:iam::123456789012:role/admin"), "ExecutionRoleArn"),
        (lambda made: made["PrimaryContainer"].update(ModelPackageName="elsewhere"), "ModelPackageName"),
    ],
)
def test_what_was_prepared_under_a_name_of_ours_is_compared_before_anything_runs_from_it(scene: Scene, change: Any, named: str) -> None:
    scene.approve(1)
    scene.faults.fail_before(method="CreateEndpoint", error=Killed())
    with pytest.raises(Killed):
        scene.ask(1)
    (made,) = scene.sagemaker.models.values()
    change(made)
    assert scene.ask(1) == "FAILED"
    assert named in scene.version(1).error
    assert scene.sagemaker.endpoints == {}


def test_an_endpoint_that_others_changed_is_put_back(scene: Scene) -> None:
    version = scene.place(1)
    own = scene.sagemaker.endpoints[NAME].config
    foreign = copy.deepcopy(scene.sagemaker.configs[own]) | {"EndpointConfigName": "foreign"}
    foreign["ProductionVariants"][0]["VariantName"] = "mine"
    scene.sagemaker.configs["foreign"] = foreign
    scene.sagemaker.endpoints[NAME].config = "foreign"
    scene.look()
    scene.go_on()
    assert scene.sagemaker.endpoints[NAME].config == own
    assert scene.variants() == {variant(version)}


def test_an_endpoint_that_others_deleted_is_made_again_and_serves_nobody_meanwhile(scene: Scene) -> None:
    version = scene.place(1)
    del scene.sagemaker.endpoints[NAME]
    scene.look()
    row = scene.meta.get(endpoint_key(MODEL, ENVIRONMENT))
    assert row is not None
    assert row["serves"] == []
    scene.go_on()
    assert scene.variants() == {variant(version)}


def test_the_image_is_that_of_the_manifest_whatever_the_row_says_of_the_candidate(scene: Scene) -> None:
    version = scene.approve(1)
    other = scene.approve(2, container=IMAGE + "ee" * 32)
    forged = replace(version, candidate=other.candidate, manifest=other.manifest)
    scene.meta._apply([Put(version_key(MODEL, 1), forged.to_item(), When())])
    assert scene.ask(1) == "FAILED"
    assert "another candidate" in scene.version(1).error
    assert scene.sagemaker.models == {}


def test_a_frozen_file_that_was_changed_stops_the_deployment_before_sagemaker_is_asked(scene: Scene) -> None:
    version = scene.approve(1)
    scene.store.put(f"{version.folder}/frozen/model/model.joblib", b"another model")
    assert scene.ask(1) == "FAILED"
    assert scene.sagemaker.models == {}


def test_a_model_that_the_registry_serves_no_longer_by_sagemaker_is_not_deployed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "endpoints", replace(SETTINGS, models=("another",)))
    scene.approve(1)
    assert scene.ask(1) == "FAILED"
    assert "does not do" in scene.version(1).error


def test_throttling_is_tried_again_and_fails_no_version(scene: Scene) -> None:
    scene.approve(1)
    scene.faults.fail_before(method="CreateEndpoint", error=RefusedError("Rate exceeded", "ThrottlingException"))
    with pytest.raises(Exception, match="ThrottlingException"):
        scene.ask(1)
    assert scene.version(1).status is Status.RUNNING
    scene.look()
    scene.go_on()
    assert scene.version(1).standing is Standing.DEPLOYED


def test_while_the_pipeline_waits_a_service_that_does_not_answer_is_waited_for_too(scene: Scene) -> None:
    scene.approve(1)
    scene.ask(1)
    scene.faults.fail_before(method="DescribeEndpoint", error=RefusedError("Rate exceeded", "ThrottlingException"))
    assert scene.ask(1, waited=True) == "WAITING"
    scene.sagemaker.settle()
    assert scene.ask(1, waited=True) == "SUCCEEDED"


def test_a_version_that_is_held_while_it_waits_is_not_put_in_place(scene: Scene) -> None:
    version = scene.approve(1)
    scene.ask(1)
    held = {"by": "erin", "reason": "a doubt", "at": "2026-01-02T03:04:05.000000Z"}
    scene.meta._apply([Put(version_key(MODEL, 1), replace(scene.version(1), held=held).to_item(), When())])
    scene.go_on()
    assert scene.pointer() == {}
    assert scene.version(1).status is Status.FAILED
    assert (scene.sagemaker.endpoints, scene.sagemaker.models) == ({}, {})
    assert variant(version) not in scene.variants()


def test_a_promotion_has_its_variant_in_the_next_environment_before_it_leaves_the_one_before(scene: Scene) -> None:
    version = scene.place_in("staging", 1)
    staging, production = (endpoint_name("attestry", MODEL, e) for e in ("staging", ENVIRONMENT))
    begin_deployment(scene.meta, ATTESTOR, scene.version(1), by=ERIN, reason="r", at=AT)
    assert scene.ask(1, environment=ENVIRONMENT, principal=ERIN.to_item()) == "WAITING"
    assert scene.sagemaker.variants(staging) == {variant(version)}
    scene.go_on()
    assert scene.pointer()["number"] == 1
    assert scene.sagemaker.variants(production) == {variant(version)}
    assert set(scene.sagemaker.endpoints) == {production}


def test_a_canary_has_its_variant_beside_the_deployed_one_and_loses_it_when_it_is_halted(scene: Scene) -> None:
    first = scene.place(1)
    second = scene.approve(2)
    plan = Plan("canary", steps=(5, 50)).to_item()
    scene.meta._apply([Put(version_key(MODEL, 2), replace(second, strategy=plan).to_item(), When())])
    scene.ask(2)
    scene.go_on(2)
    assert scene.version(2).standing is Standing.CANARY
    assert scene.variants() == {variant(first), variant(second)}
    halt_rollout(scene.meta, ATTESTOR, MODEL, environment=ENVIRONMENT, by=FRANK, reason="worse", at=AT)
    scene.go_on()
    assert scene.variants() == {variant(first)}


def test_a_quota_that_is_full_fails_the_deployment_with_sagemakers_sentence(scene: Scene) -> None:
    scene.approve(1)
    full = RefusedError("The account-level service limit 'ml.m7i.xlarge for endpoint usage' is 0 Instances", "ResourceLimitExceeded")
    scene.faults.fail_before(method="CreateEndpoint", error=full)
    assert scene.ask(1) == "FAILED"
    assert "endpoint usage" in scene.version(1).error


def test_a_swap_is_refused_when_the_endpoint_changes_between_look_and_swap(scene: Scene) -> None:
    scene.place(1)
    scene.place(2)
    row = scene.meta.get(endpoint_key(MODEL, ENVIRONMENT))
    assert row is not None

    real = scene.meta.transact

    def others_first(writes: Any) -> None:
        scene.meta.transact = real  # type: ignore[method-assign]
        narrowed = {k: v for k, v in row.items() if k not in ("pk", "sk")} | {"serves": [2], "rev": int(row["rev"]) + 1}
        real([Put(endpoint_key(MODEL, ENVIRONMENT), narrowed, When(exists=True))])
        real(writes)

    scene.meta.transact = others_first  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="has no variant"):
        roll_back(scene.meta, ATTESTOR, MODEL, environment=ENVIRONMENT, by=FRANK, reason="worse", at=AT)
    assert scene.pointer()["number"] == 2


def test_a_configuration_that_was_made_anew_under_its_name_is_noticed_with_the_endpoints_next_change(scene: Scene) -> None:
    scene.place(1)
    scene.sagemaker.configs[scene.sagemaker.endpoints[NAME].config]["ProductionVariants"][0]["ModelName"] = "other"
    scene.sagemaker.models["other"] = next(iter(scene.sagemaker.models.values()))
    scene.sagemaker.endpoints[NAME].modified += timedelta(seconds=1)
    with pytest.raises(IntegrityError, match="ModelName"):
        deploy.keeper().look(MODEL, ENVIRONMENT)
