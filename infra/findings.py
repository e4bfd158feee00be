"""Every cdk-nag finding that stands, with the resources and the reason. See `infra/nag.py`."""

from __future__ import annotations

from infra.nag import Acknowledgement


def _functions(*names: str) -> tuple[str, ...]:
    return tuple(f"Functions/{name}" for name in names)


def _roles(*names: str) -> tuple[str, ...]:
    return tuple(f"Functions/{name}Role" for name in names)


_API = _functions(
    "Authenticate",
    "Bundle",
    "Catalogue",
    "Custody",
    "Decide",
    "Describe",
    "Mlflow",
    "Operate",
    "People",
    "Predict",
    "Registry",
    "Root",
    "Runs",
    "Uploads",
    "Webhooks",
)
_STAGES = _functions("BuildEnvironment", "Evaluate", "Gate", "PrepareStage", "RecordStage")
_EVENTS = _functions("Collect", "ConsoleDecision", "Deploy", "Reconcile", "Register", "Sequence", "Sweep", "Tell")
_BOTH = _functions("Custody", "Predict")
"""Answer the API, and events of a schedule or of the sweep too."""

_UNTRUSTED = _functions("Inference", "Sandbox")
_SIGNERS = _functions("Delegate", "SignArtifact", "Witness/Witness")
_MESSAGES = _functions("Deliver")
"""Takes messages of a queue that has a dead-letter queue of its own."""

_ALL_FUNCTIONS = (*_API, *_STAGES, *_EVENTS, *_UNTRUSTED, *_SIGNERS, *_MESSAGES)
_ALL_ROLES = tuple(f"{function}Role" for function in _ALL_FUNCTIONS)
_PEOPLE = tuple(f"Identity/{role}" for role in ("Scientist", "Validator", "Approver", "Deployer", "Consumer", "Auditor", "Admin"))
_MACHINES = ("Pipeline/Pipeline", "Pipeline/Decision")
_MACHINE_ROLES = ("Pipeline/PipelineRole", "Pipeline/DecisionRole")

ACKNOWLEDGED = (
    Acknowledgement(
        ("L1",),
        _ALL_FUNCTIONS,
        "python3.13 is the runtime that the lock file and the tests are made for; it is supported until October 2029.",
    ),
    Acknowledgement(
        ("LambdaLatestVersion",),
        _ALL_FUNCTIONS,
        "The rule means the latest runtime; python3.13 is the one that the lock file and the tests are made for.",
    ),
    Acknowledgement(
        ("LambdaTracing",),
        _ALL_FUNCTIONS,
        "X-Ray would add a permission on every resource to every role and keep payload-derived data outside the registry's own records; "
        "structured logs with the execution's name, and the version's own records, follow a request instead.",
    ),
    Acknowledgement(
        ("LambdaInsideVPC",),
        _API,
        "Answers the API and calls AWS services over TLS with signed requests; a VPC would add a NAT or eight interface endpoints and "
        "protect nothing here.",
    ),
    Acknowledgement(
        ("LambdaInsideVPC",),
        _STAGES,
        "Runs the registry's own code over S3 and DynamoDB; build_environment needs a way to the package index, the others no network "
        "of ours.",
    ),
    Acknowledgement(
        ("LambdaInsideVPC",),
        _EVENTS,
        "Runs the registry's own code over S3, DynamoDB and Step Functions; there is no network resource to reach.",
    ),
    Acknowledgement(("LambdaInsideVPC",), _SIGNERS, "Calls KMS, and DynamoDB or S3, only; there is no network resource to reach."),
    Acknowledgement(
        ("LambdaDLQ",),
        tuple(function for function in _API if function not in _BOTH),
        "Invoked synchronously by API Gateway, which hands the failure to the caller; a dead-letter queue would never be used.",
    ),
    Acknowledgement(
        ("LambdaInsideVPC",),
        _MESSAGES,
        "Sends requests to receivers on the internet, which a VPC would need a NAT for; the registry has no network resource that they "
        "could be turned against, and addresses that the internet does not route to are refused before a connection.",
    ),
    Acknowledgement(
        ("LambdaDLQ",),
        _MESSAGES,
        "Invoked with messages of a queue: what fails eight times is in that queue's dead-letter queue, which has an alarm.",
    ),
    Acknowledgement(
        ("LambdaEventSourceMappingDestination",),
        _functions("Deliver/Deliveries"),
        "The queue has a dead-letter queue of its own; a mapping of a queue takes no destination.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _MESSAGES,
        "The mapping of the queue lets ten run at once; a reserve would throttle it, and throttled messages use up their tries.",
    ),
    Acknowledgement(
        ("LambdaDLQ",),
        _STAGES,
        "Invoked synchronously by the state machine, which catches the failure and records it with the version; a dead-letter queue would "
        "never be used.",
    ),
    Acknowledgement(
        ("LambdaDLQ",),
        (*_UNTRUSTED, *_SIGNERS),
        "Invoked synchronously by the state machine or by another function, which answers the failure; the sandboxed ones must not "
        "even hold the permission to send to a queue.",
    ),
    Acknowledgement(
        ("LambdaAsyncFailureDestination",),
        tuple(f"{function}/EventInvokeConfig" for function in (*_EVENTS, *_BOTH)),
        "Events that fail go to the function's dead-letter queue, which has an alarm; a destination beside it would deliver them twice.",
    ),
    Acknowledgement(
        ("LambdaEventSourceMappingDestination",),
        _functions("Sequence/Outbox", "Deploy/CanaryFailures"),
        "The stream only wakes the function, which reads from the table what there is to do; a wake that got lost is made up for by the "
        "schedule.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _API,
        "Bounded by the API's throttling; reserving concurrency would take it from the other functions of the account.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _functions("Gate", "PrepareStage", "RecordStage"),
        "Bounded by the number of executions, whose sandbox and builds have a cap.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _functions("ConsoleDecision", "Deploy", "Register"),
        "A decision, a deployment or an upload must not wait for others of its kind; each is short, and conditional writes "
        "keep them apart.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _functions("Inference", "Delegate"),
        "Bounded by predict, which the API throttles; a cap here would turn into cold answers for callers.",
    ),
    Acknowledgement(
        ("LambdaConcurrency",),
        _functions("SignArtifact", "Witness/Witness"),
        "Called by record_stage, once a version, or by sequence, of which one runs at a time.",
    ),
    Acknowledgement(
        ("SQSRedrivePolicy",),
        (*(f"{function}Failed" for function in (*_EVENTS, *_BOTH)), "Outlets/Undelivered"),
        "This is itself the dead-letter queue; a person looks at it when its alarm goes off.",
    ),
    Acknowledgement(
        ("IAMNoInlinePolicy",),
        _ALL_ROLES,
        "Each function has a policy that fits it alone; inline it goes with its role, and cannot be attached to another.",
    ),
    Acknowledgement(
        ("IAMNoInlinePolicy",),
        (*_PEOPLE, *_MACHINE_ROLES),
        "The policy fits this role alone; inline it goes with its role, and cannot be attached to another.",
    ),
    Acknowledgement(
        ("IAM5",), _ALL_ROLES, "The streams of the function's own log group; Lambda names them.", "*:log-group:/aws/lambda/*:log-stream:*"
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("BuildEnvironment", "Deploy", "Evaluate", "Predict", "PrepareStage", "RecordStage", "Registry"),
        "Environments are named by their digest, which is not known before.",
        "Resource::<StoresStore*.Arn>/environments/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage", "Register", "Registry"),
        "Data sets are named by their digest, which is not known before.",
        "Resource::<StoresStore*.Arn>/datasets/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody", "RecordStage", "Registry"),
        "Models and versions are made after the deployment; bucket policy and Object Lock keep what is written from being changed.",
        "Resource::<StoresStore*.Arn>/models/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Custody", "Deploy", "Gate", "Mlflow", "Predict", "PrepareStage", "Reconcile", "RecordStage", "SignArtifact"),
        "Models and versions are made after the deployment; only frozen files of theirs.",
        "Resource::<StoresStore*.Arn>/models/[*]/frozen/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody", "Predict"),
        "Models and versions are made after the deployment; only payloads too large for a row.",
        "Resource::<StoresStore*.Arn>/models/[*]/predictions/payloads/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Custody", "Gate", "PrepareStage", "Reconcile", "RecordStage", "Register", "Registry"),
        "Candidates are named by their digest, which is not known before.",
        "Resource::<StoresStore*.Arn>/registered/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Collect", "Reconcile"),
        "Models and versions are made after the deployment; only their folder of predictions.",
        "Resource::<StoresStore*.Arn>/models/[*]/predictions/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("ConsoleDecision", "Custody", "Decide", "Deploy", "Gate", "Operate", "PrepareStage", "RecordStage", "Register"),
        "Models and versions are made after the deployment; only their attestations, which are written once and locked.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/attestations/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("ConsoleDecision", "Decide", "Gate"),
        "Models and versions are made after the deployment; only what is decided on, which the gate alone of these writes.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/packet-[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("RecordStage"),
        "Models and versions are made after the deployment; only records, logs and prepared data of their stages.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Decide"),
        "Models and versions are made after the deployment; only approvers' own signatures.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/signatures/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Decide"),
        "Models and versions are made after the deployment; only validators' records.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/validations/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Reconcile"),
        "Models and versions are made after the deployment; only their evidence, to be read.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody"),
        "Models and versions are made after the deployment; only the lists of what was disposed of them.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/disposals/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody"),
        "Models and versions are made after the deployment; only prepared data, which are deleted when their retention is over.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/PROCESSING/[*]/data/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody"),
        "Models and versions are made after the deployment; only captured payloads, which are deleted when their retention is over.",
        "Resource::<StoresStore*.Arn>/models/[*]/predictions/[*].private.ndjson",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("SignArtifact"),
        "Models and versions are made after the deployment; only the one signature over their files.",
        "Resource::<StoresStore*.Arn>/models/[*]/evidence/model.sig",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Reconcile"),
        "Models and versions are made after the deployment; only the records of their stages.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/[*]/record.json",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Deliver", "Reconcile", "Registry", "Sequence", "Tell"),
        "The ledger's tiles are named by their place, which is not known before; the sequencer alone writes them.",
        "Resource::<StoresStore*.Arn>/ledger/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle", "Reconcile", "Registry", "Root"),
        "Metadata of the root of trust is named by version and digest; the root function alone writes it, once it is well signed.",
        "Resource::<StoresStore*.Arn>/root/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Bundle"),
        "Bundles are named by what they prove; they expire with the scratch bucket's files.",
        "Resource::<StoresScratch*.Arn>/bundles/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Deploy", "Sequence"),
        "DynamoDB names a table's stream by the time at which it was turned on.",
        "Resource::<StoresMeta*.Arn>/stream/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage", "Register", "Uploads"),
        "Submissions are made after the deployment, by any caller.",
        "Resource::<StoresStore*.Arn>/candidates/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Register"),
        "Data come in for models that are made after the deployment, from whoever the bucket's policy lets write there.",
        "Resource::<StoresStore*.Arn>/datasets-in/[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("Deploy"),
        "Manifests name the alarms that halt a rollout after the deployment; composite ones are described with this right on * alone.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("Register"),
        "Manifests name the alarms that refresh them after the deployment; composite ones are described with this right on * alone.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("RecordStage"),
        "Only files of imports, which are uploaded after the deployment, below the prefix of whoever brings them.",
        "Resource::<StoresStore*.Arn>/candidates/[*]/import/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Register", "Uploads"),
        "Only outcomes beside manifests, which are made after the deployment.",
        "Resource::<StoresStore*.Arn>/candidates/[*].status.json",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Evaluate", "PrepareStage", "RecordStage"),
        "Jobs are named by execution, stage and attempt, which are not known before.",
        "Resource::<StoresScratch*.Arn>/jobs/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage"),
        "Only job files, of jobs that are named by execution, stage and attempt.",
        "Resource::<StoresScratch*.Arn>/jobs/[*]/job.json",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage"),
        "Only what was laid out for jobs, which are named by model, execution, stage and attempt.",
        "Resource::<StoresScratch*.Arn>/jobs/[*]/in/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage"),
        "Models and versions are made after the deployment; only the training set.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/PROCESSING/[*]/data/train/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("PrepareStage"),
        "Models and versions are made after the deployment; only the hold-out's features.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/PROCESSING/[*]/data/holdout/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Custody", "Evaluate"),
        "Which versions there are is not known before; what they predicted on their hold-outs alone, for comparisons row by row.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/VALIDATION/[*]/predictions.json",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Evaluate"),
        "Models and versions are made after the deployment; only the hold-out labels.",
        "Resource::<StoresStore*.Arn>/models/[*]/stages/PROCESSING/[*]/data/holdout-labels/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Evaluate"),
        "Only the folder for results of jobs, which are not known before.",
        "Resource::<StoresScratch*.Arn>/jobs/[*]/evaluated/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("Gate", "Operate", "Register", "Sweep"),
        "Executions of the pipeline are named after the version that they make.",
        "Resource::*:execution:attestry-pipeline:[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("Gate"),
        "states:SendTaskSuccess and SendTaskFailure have no resource type; this is why one function alone holds them.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _roles("ConsoleDecision", "Operate"),
        "Executions of RegistryDecision are named by the AWS console.",
        "Resource::*:execution:attestry-RegistryDecision:[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("ConsoleDecision", "Operate"),
        "cloudtrail:LookupEvents has no resource type.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("Reconcile"),
        "Reading CloudWatch's metrics has no resource type; the gateway's counts are what the registry's are compared with.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5", "LambdaStarPermissions"),
        _roles("Inference", "Sandbox"),
        "Lambda attaches the function to the VPC with these; the function's own code is denied them by lambda:SourceFunctionArn.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5",), _MACHINE_ROLES, "The delivery of state machine logs is set up by actions that have no resource type.", "Resource::[*]"
    ),
    Acknowledgement(
        ("IAM5",),
        _PEOPLE,
        "The route's variables: models, versions, submissions and predictions are made later.",
        "Resource::*/$default/[DGP][AEOU]*",
    ),
    Acknowledgement(
        ("IAM5",),
        ("Identity/Scientist",),
        "The caller's own upload prefix; S3 puts the caller's user ID in its place.",
        "Resource::<StoresStore*.Arn>/candidates/<aws:userid>/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        ("Identity/Scientist",),
        "Where the caller brings data, for models and sources that are made later, below its own user ID.",
        "Resource::<StoresStore*.Arn>/datasets-in/[*]/[*]/<aws:userid>/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        ("Identity/Admin", "Identity/Approver", "Identity/Deployer", "Identity/Scientist", "Identity/Validator"),
        "Executions of RegistryDecision are named by the AWS console.",
        "Resource::*:execution:attestry-RegistryDecision:[*]",
    ),
    Acknowledgement(
        ("SF2", "StepFunctionStateMachineXray"),
        _MACHINES,
        "The execution's history, the log of every event, and the version's own records hold what X-Ray would; it would need a "
        "permission on every resource.",
    ),
    Acknowledgement(
        ("S3BucketReplicationEnabled",),
        ("Stores/Store",),
        "Versioned and under Object Lock; a copy in another region or account is a decision about cost and law that a deployment takes for "
        "itself (docs/deploy.md).",
    ),
    Acknowledgement(
        ("S3BucketReplicationEnabled",),
        ("Stores/Scratch",),
        "Working files that expire within days and can be made again by retrying the stage.",
    ),
    Acknowledgement(
        ("S3BucketReplicationEnabled", "S3DefaultEncryptionKMS"),
        ("Stores/AccessLogs",),
        "S3 delivers server access logs only under its own keys (SSE-S3), and they are a trace of what the stores hold, not the record.",
    ),
    Acknowledgement(
        ("DynamoDBInBackupPlan",),
        ("Stores/Meta", "Functions/Witness/Seen"),
        "Point-in-time recovery and deletion protection are on; a backup plan belongs to the account's own AWS Backup policy.",
    ),
    Acknowledgement(
        ("VPCDefaultSecurityGroupClosed",),
        ("Isolation/Vpc",),
        "Closing the default group takes a custom resource with permissions of its own; nothing is placed in the group, and no route leads "
        "out but to S3.",
    ),
)
