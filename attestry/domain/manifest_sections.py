"""The sections of a manifest as typed records, named as the fields of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = str | int | float | bool
"""A parameter's value. Integers lie within ±(2^53-1) and a number without a fraction is an integer, as in RFC 8785."""

ParameterValue = Scalar | tuple[Scalar, ...]

Executor = Literal["lambda", "sagemaker", "batch", "emr-serverless"]


@dataclass(frozen=True)
class Model:
    """What the model is and who answers for it."""

    name: str
    owner: str
    team: str
    purpose: str
    risk_tier: Literal["low", "medium", "high"]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dirty:
    """That the code differs from its revision.

    Attributes:
        diff_sha256: digest of the difference, `git diff HEAD --binary`, which lies in the upload folder as
        `source.diff`.
    """

    diff_sha256: str


@dataclass(frozen=True)
class Source:
    """Which code.

    Attributes:
        repository: URL of the git repository, without credentials.
        revision: full commit ID, 40 or 64 hex digits.
        author: who wrote the code.
        sha256: digest of the archive.
        archive: file name of the tar.gz in the upload folder.
        dirty: present when the archive holds changes that are not in the revision.
    """

    repository: str
    revision: str
    author: str
    sha256: str
    archive: str = "source.tar.gz"
    dirty: Dirty | None = None


@dataclass(frozen=True)
class Component:
    """A framework or an algorithm with its exact version."""

    name: str
    version: str


@dataclass(frozen=True)
class Environment:
    """What the scripts run in.

    Attributes:
        framework: the framework.
        algorithm: the algorithm.
        lock_file: path in the source archive of a pip requirements file with hashes; for stages on `lambda`.
        container: image with digest; for stages on other executors.
    """

    framework: Component
    algorithm: Component
    lock_file: str | None = None
    container: str | None = None


@dataclass(frozen=True)
class DataSource:
    """One file of source data.

    Attributes:
        uri: `data/<file>` in the upload folder, or `s3://bucket/key`.
        sha256: digest of the file.
        origin: where the data come from.
        version_id: S3 version, for `s3://`.
    """

    name: str
    uri: str
    sha256: str
    origin: str
    version_id: str | None = None
    format: str | None = None
    description: str | None = None
    licence: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in the `source` channel of processing."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def is_uploaded(self) -> bool:
        """Whether the file lies in the upload folder."""
        return not self.uri.startswith("s3://")


@dataclass(frozen=True)
class DataSet:
    """A prepared data set: training or hold-out.

    Attributes:
        channel: the folder below SM_OUTPUT_DATA_DIR that processing writes, and the channel's name in the stages that
            read it.
    """

    channel: str
    description: str | None = None


@dataclass(frozen=True)
class Label:
    """The ground truth: its column in the prepared data, and which label set it is."""

    column: str
    version: str
    source: str
    labeller: str


@dataclass(frozen=True)
class PreparationStep:
    """One step that formed the data, in order; `script` is the path in the source archive that does it."""

    name: str
    kind: str
    script: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Source data, prepared data sets, label and the steps between."""

    source: tuple[DataSource, ...]
    training: DataSet
    holdout: DataSet
    label: Label
    preparation: tuple[PreparationStep, ...]


@dataclass(frozen=True)
class Resources:
    """What a stage asks for.

    Attributes:
        memory_mib: memory in MiB; on `emr-serverless` of each worker.
        timeout_seconds: time limit of the script in seconds.
        cpu: number of virtual CPUs; on `emr-serverless` of each worker.
        gpu: number of GPUs.
        instance: instance type.
        instance_count: number of machines, or of Spark's executors; 1 where it is left out.
        volume_gib: size of the disk in GiB.
        spot: whether spare capacity will do, which may be taken away.
        max_wait_seconds: limit of script and waiting for spare capacity together, in seconds.
    """

    memory_mib: int = 2048
    timeout_seconds: int = 600
    cpu: float | None = None
    gpu: int | None = None
    instance: str | None = None
    instance_count: int | None = None
    volume_gib: int | None = None
    spot: bool | None = None
    max_wait_seconds: int | None = None


@dataclass(frozen=True)
class Processing:
    """The PROCESSING stage: `script` reads the channel `source` and writes both data sets."""

    script: str
    executor: Executor = "lambda"
    resources: Resources = field(default_factory=Resources)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    container: str | None = None


@dataclass(frozen=True)
class Training:
    """The TRAINING stage: `script` reads the training channel and writes the model."""

    script: str
    executor: Executor = "lambda"
    resources: Resources = field(default_factory=Resources)
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    container: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns of the answer of `predict_fn` hold the prediction and the score, where it answers a table."""

    prediction: str = "prediction"
    score: str | None = None


@dataclass(frozen=True)
class Metric:
    """A metric that the registry computes on the hold-out.

    Attributes:
        name: function of `sklearn.metrics`.
        alias: name under which it is reported and gated; None for the function's own.
        parameters: keyword arguments of the function.
    """

    name: str
    alias: str | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name that results and gates use."""
        return self.alias or self.name


@dataclass(frozen=True)
class Validation:
    """The VALIDATION stage: `script` has `model_fn` and `predict_fn`; it also serves the model after deployment."""

    script: str
    task: Literal["classification", "regression"]
    metrics: tuple[Metric, ...]
    executor: Executor = "lambda"
    resources: Resources = field(default_factory=Resources)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)
    container: str | None = None


@dataclass(frozen=True)
class MetricGate:
    """A floor, a ceiling or both for a metric."""

    metric: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class ComparisonGate:
    """The metric may be worse than the deployed version's by at most `by_more_than`.

    Attributes:
        metric: name or alias.
        by_more_than: in the metric's own unit.
        confidence: if given, the whole interval of this confidence has to be no worse, computed on the same hold-out.
        superior: the whole interval has to be better.
    """

    metric: str
    by_more_than: float
    confidence: float | None = None
    superior: bool | None = None


@dataclass(frozen=True)
class RecordGate:
    """A record that validators must have handed in before the approval can be completed (`attestry.domain.validations`).

    Attributes:
        kind: of the record.
        metric: of a trial, what it has to be about; None for any.
        better: of a trial, what it has to take for better; None for `higher`.
        p_value_at_most: of a trial, one-sided.
        effect_at_least: of a trial, in the metric's own unit, signed so that more is better.
        minimum_size: of a trial, of its smaller arm.
        overlap_at_most: of a leakage check, in rows.
        violations_at_most: of a schema check: columns that differ and rows that break a rule, together.
    """

    kind: Literal["ab-test", "champion-challenger", "leakage-check", "schema-check"]
    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    p_value_at_most: float | None = None
    effect_at_least: float | None = None
    minimum_size: int | None = None
    overlap_at_most: int | None = None
    violations_at_most: int | None = None


@dataclass(frozen=True)
class Gates:
    """What must hold before VALIDATION is passed; `records` before APPROVAL is.

    `required` names fields of the manifest that must be filled in. `records` is None where none is asked for, so that the manifests of
    former times keep their digests.
    """

    metrics: tuple[MetricGate, ...] = ()
    no_worse_than_deployed: tuple[ComparisonGate, ...] = ()
    required: tuple[str, ...] = ()
    records: tuple[RecordGate, ...] | None = None


@dataclass(frozen=True)
class Requirement:
    """So many persons in a role."""

    role: str
    count: int = 1


@dataclass(frozen=True)
class People:
    """Who must approve: `count` persons with one of the roles, or what `require` names role by role.

    Attributes:
        roles: roles of which a person needs one; None with `require`.
        count: how many persons, 1 where it is left out; None with `require`, whose counts say that.
        require: how many persons of which role; None with `roles`.
        in_order: the requirements are filled in the order in which they stand.
        independent: who wrote the code decides nothing.
        fresh_eyes: who approved the version before does not decide.
    """

    roles: tuple[str, ...] | None = None
    count: int | None = None
    require: tuple[Requirement, ...] | None = None
    in_order: bool = False
    independent: bool = False
    fresh_eyes: bool = False


@dataclass(frozen=True)
class Approval:
    """Either automatic, or by people; exactly one of the two. `signed` asks each of them for a signature of their own.

    Attributes:
        automatic: the gates alone decide.
        people: who must approve.
        signed: see above.
        valid_days: for how many days an approval counts.
        until: first day (UTC, `YYYY-MM-DD`) on which none counts any more.
        on_lapse: what becomes of the version's place then.
        notice_days: how many days before people are told.
    """

    automatic: bool = False
    people: People | None = None
    signed: bool = False
    valid_days: int | None = None
    until: str | None = None
    on_lapse: Literal["vacate", "rollback"] | None = None
    notice_days: int | None = None


@dataclass(frozen=True)
class EnvironmentApproval:
    """What it takes to promote a version to an environment: people, and how long their approval counts, as in `Approval`.

    Attributes:
        to: the environment.
        people: who must approve.
        signed, valid_days, until, on_lapse, notice_days: as in `Approval`.
    """

    to: str
    people: People
    signed: bool = False
    valid_days: int | None = None
    until: str | None = None
    on_lapse: Literal["vacate", "rollback"] | None = None
    notice_days: int | None = None


@dataclass(frozen=True)
class CanaryAlarm:
    """What halts a canary: a share of failures, a latency, or alarms of CloudWatch."""

    error_rate: float = 0.05
    minimum_errors: int = 3
    latency_p95_ms: int = 0
    cloudwatch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Canary:
    """Shares of the requests in percent, rising, and what each step needs before the next."""

    steps: tuple[int, ...] = (5, 25, 50)
    minutes: int = 10
    predictions: int = 1
    alarm: CanaryAlarm = field(default_factory=CanaryAlarm)


@dataclass(frozen=True)
class Shadow:
    """How long a shadow is compared: minutes, or fewer where `predictions` (0: none) are reached before."""

    minutes: int = 60
    predictions: int = 0


@dataclass(frozen=True)
class Endpoint:
    """What serves the version on SageMaker.

    Attributes:
        container: image with digest; it starts `attestry.sandbox.endpoint`.
        instance: instance type.
        instance_count: number of machines.
        startup_seconds: how long reading the model's files, and then loading them, may take each.
        data_capture: percent of the calls that SageMaker's own data capture keeps.
    """

    container: str
    instance: str
    instance_count: int = 1
    startup_seconds: int = 600
    data_capture: int = 0


@dataclass(frozen=True)
class Deployment:
    """Where and how the version serves.

    Attributes:
        environment: where the pipeline puts it.
        target: what serves it: the inference function, or an endpoint of SageMaker.
        endpoint: the machines and the image of that endpoint; None with `function`.
        memory_mib: memory of the serving function.
        capture_rate: the share of predictions that is kept, 0 to 1.
        strategy: how it comes into place where another version is deployed.
        canary: the steps of that strategy; None for its defaults.
        shadow: the length of that strategy; None for its defaults.
        promotes_to: further environments, in the order in which the version may be promoted to them.
        expires: the first day (UTC, `YYYY-MM-DD`) on which the version may not be used, or how many days after it was first put in place.
        promotion: environments of `promotes_to` that have an approval of their own; None where none has.
    """

    environment: str = "production"
    target: Literal["function", "sagemaker"] = "function"
    endpoint: Endpoint | None = None
    memory_mib: int = 2048
    capture_rate: float = 1
    expires: str | int | None = None
    strategy: Literal["all-at-once", "canary", "shadow"] = "all-at-once"
    canary: Canary | None = None
    shadow: Shadow | None = None
    promotes_to: tuple[str, ...] = ()
    promotion: tuple[EnvironmentApproval, ...] | None = None


@dataclass(frozen=True)
class Reproduction:
    """Whether a second run must give equal bytes, or metrics within an absolute tolerance."""

    bit_equal: bool
    tolerance: float | None = None


@dataclass(frozen=True)
class Retention:
    """How long what a version leaves is kept once it is out of use.

    Attributes:
        name: of the retention class.
        years: how many.
        mode: of the Object Lock that the version's objects get for that time.
    """

    name: str
    years: int
    mode: Literal["governance", "compliance"] = "governance"


@dataclass(frozen=True)
class Refresh:
    """When a new version is made of the candidate by itself.

    Attributes:
        schedule: see `attestry.domain.schedule`; None for no schedule.
        data: whether source files that are dropped into the store make a version.
        quiet_seconds: how long no further file must have come.
        alarms: names of CloudWatch alarms.
        cooldown: a period such as `6 hours`; None for none.
        deploy: who puts what was approved in place.
        reuse: stages that are taken from an earlier version which ran them on the same inputs; None to run all.
    """

    schedule: str | None = None
    data: bool = False
    quiet_seconds: int = 0
    alarms: tuple[str, ...] = ()
    cooldown: str | None = None
    deploy: Literal["automatic", "people"] = "people"
    reuse: tuple[Literal["processing", "training"], ...] | None = None
