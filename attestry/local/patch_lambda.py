"""Patch: errors, streams, tenants and identity of functions.

What AWS does (Lambda Developer Guide, "Lambda function handler in Python", "Tenant isolation", "Asynchronous invocation") and
the emulator does not:
- The class of an exception arrives as `errorType`, so that Step Functions can retry and catch by class; the execution
  environment lives on after an exception.
- What a handler's children print goes to the log: they inherit neither the pipe that carries the answer nor the one that
  carries the next event.
- An invocation with a tenant ID runs in an execution environment of that tenant alone, and `context.tenant_id` names it;
  a function with tenant isolation refuses an invocation without one.
- A function that is the target of an EventBridge rule is invoked asynchronously: two retries, then its dead-letter queue.
- `aws:userid` of a function's session begins with the ID of its role.
- The log of an invocation is complete when its last line is there; the emulator waits 50 ms for a first line instead.
- The mapping of a table's stream goes on after a restart, with what is written from then on.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from attestry.local.patch_conditions import keep_function
from attestry.local.patching import PatchError, load, replace, replace_text, share

_TENANT_MARK = "+tenant="
_TENANT_VARIABLE = "_ATTESTRY_LOCAL_TENANT_ID"
_TENANT_ID = re.compile(r"[A-Za-z0-9._:/=+\-@ ]{1,256}")
_tenant: contextvars.ContextVar[str] = contextvars.ContextVar("attestry_local_tenant", default="")
_last = threading.local()
_LOG = logging.getLogger("attestry.local.functions")

_END_OF_LOG = "\0"
_LOG_SECONDS = 0.25
_TENANTS_KEPT = 8
_TENANTS_LONGER = 5
"""So many tenants' processes are kept idle so many times as long as others."""

_STREAMS = (
    """    # Redirect print() to stderr so stdout stays clean for JSON-line protocol
    _real_stdout = sys.stdout
    sys.stdout = sys.stderr
""",
    """    # The pipes of the protocol move to descriptors that no child inherits.
    _real_stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdin = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    _null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(_null, 0)
    os.close(_null)
    sys.stdout = sys.stderr
""",
)
_TENANT_OF_WORKER = (
    """    os.environ.update(env)
    sys.path.insert(0, code_dir)
""",
    f"""    os.environ.update(env)
    _tenant_id = os.environ.pop("{_TENANT_VARIABLE}", None)
    sys.path.insert(0, code_dir)
""",
)
_TENANT_OF_CONTEXT = (
    """            "identity": None,
            "client_context": None,
            "get_remaining""",
    """            "identity": None,
            "client_context": None,
            "tenant_id": _tenant_id,
            "get_remaining""",
)
_RAISED = (
    """        except Exception as e:
            _real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()}) + "\\n")
        _real_stdout.flush()
""",
    """        except Exception as e:
            _real_stdout.write(json.dumps({"status": "ok", "raised": {
                "errorMessage": str(e), "errorType": type(e).__name__,
                "stackTrace": traceback.format_tb(e.__traceback__), "trace": traceback.format_exc()}}) + "\\n")
        sys.stderr.flush()
        os.write(2, b"\\0\\n")
        _real_stdout.flush()
""",
)


def apply() -> None:
    """Patch the running of functions.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    runtime = load("ministack.core.lambda_runtime")
    replace_text(runtime, "_PYTHON_WORKER_SCRIPT", [_STREAMS, _TENANT_OF_WORKER, _TENANT_OF_CONTEXT, _RAISED])
    replace(runtime.Worker, "__init__", "9f537cd431cf448b", _worker_of_tenant)
    replace(runtime.Worker, "invoke", "96751a75471021ec", _invoke_worker)
    replace(runtime.Worker, "_drain_stderr_bounded", "3fd7cc742872e604", lambda _: _read_log)
    replace(runtime, "_worker_key", "0537100beb43da29", _key_with_tenant)
    replace(runtime, "execution_credentials", "cffaadc4f396f6e4", _credentials_with_role_id)
    functions = load("ministack.services.lambda_svc")
    replace(runtime, "reap_idle_workers", "d0e5aa7c2b5902ae", lambda original: _reap_with_tenants(runtime, original))
    replace(runtime, "invalidate_worker", "1be5d7f769f5c608", lambda original: _invalidate_with_tenants(runtime, original))
    for name in ("execution_credentials", "reap_idle_workers", "invalidate_worker"):
        share(runtime, name, functions)
    replace(functions, "load_persisted_state", "140113ddcd3634e1", lambda original: _restore_from_the_start(functions, original))
    replace(functions, "_execute_function_warm", "62b9218bef5b948a", _execute_with_class)
    replace(functions, "_invoke", "ab193779e5c2ea94", lambda original: _invoke_for_tenant(functions, original))
    _keep_tenancy_of_templates()
    events = load("ministack.services.eventbridge")
    replace(events, "_dispatch_to_lambda", "1f95adbaed3a966a", lambda _: _dispatch_with_retry(functions))


def _keep_tenancy_of_templates() -> None:
    provisioners = load("ministack.services.cloudformation.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS.get("AWS::Lambda::Function") or {}
    for verb in ("create", "update"):
        if handlers.get(verb) is not getattr(provisioners, f"_lambda_{verb}", None):
            raise PatchError(f"CloudFormation does not {verb} functions the way the patch expects")
    handlers["create"] = _with_tenancy(handlers["create"], properties_at=1)
    handlers["update"] = _with_tenancy(handlers["update"], properties_at=2)


def _with_tenancy(original: Callable[..., Any], *, properties_at: int) -> Callable[..., Any]:
    # The emulator asks for the parameters of a handler by name, so the replacement must show those of the original.
    @functools.wraps(original)
    def provision(*args: Any, **kwargs: Any) -> Any:
        name, attributes = original(*args, **kwargs)
        tenancy = args[properties_at].get("TenancyConfig")
        record = load("ministack.services.lambda_svc")._functions.get(name)
        if tenancy and record:
            record["config"]["TenancyConfig"] = tenancy
        return name, attributes

    return provision


def _invoke_worker(original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        _last.error = None
        answer = original(self, *args, **kwargs)
        raised = answer.pop("raised", None)
        if raised is not None:
            answer.update(status="error", error=raised["errorMessage"], trace=raised.pop("trace"))
            _last.error = raised
        elif answer.get("error") == "Worker process died":
            _last.error = {"errorMessage": "Runtime exited", "errorType": "Runtime.ExitError"}
        return answer

    return invoke


def _read_log(self: Any, *_: float) -> str:
    # A worker that died wrote no end; then the log is what came in time.
    lines: list[str] = []
    deadline = time.monotonic() + _LOG_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = self._stderr_queue.get(timeout=left)
        except queue.Empty:
            break
        if line == _END_OF_LOG:
            break
        lines.append(line)
    return "\n".join(lines)


def _execute_with_class(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(func: Any, event: Any, request_id: str) -> Any:
        _last.error = None
        result = original(func, event, request_id)
        body = result.get("body")
        if _last.error is not None and isinstance(body, dict) and body.get("errorType") == "Runtime.HandlerError":
            result["body"] = {**_last.error, "requestId": request_id}
        return result

    return execute


def _worker_of_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(self: Any, func_name: str, config: dict[str, Any], code_zip: bytes) -> None:
        tenant = _tenant.get()
        if tenant:
            variables = {**config.get("Environment", {}).get("Variables", {}), _TENANT_VARIABLE: tenant}
            config = {**config, "Environment": {"Variables": variables}}
        original(self, func_name, config, code_zip)

    return init


def _key_with_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    def worker_key(func_name: str, config: dict[str, Any], qualifier: str) -> str:
        key = str(original(func_name, config, qualifier))
        tenant = _tenant.get()
        # A colon would add a part to the key, which is taken apart again when workers are invalidated.
        return f"{key}{_TENANT_MARK}{tenant.encode().hex()}" if tenant else key

    return worker_key


def _reap_with_tenants(runtime: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def reap(ttl: float | None = None) -> int:
        kept, now = float(runtime._LOCAL_WORKER_TTL if ttl is None else ttl), time.time()
        with runtime._lock:
            keys = [key for key in runtime._workers if _TENANT_MARK in key]
            idle = sorted((w for key in keys for w in runtime._workers[key] if not w.in_use), key=lambda w: w.last_used, reverse=True)
            # What a tenant has loaded takes long to load again, so some of them are kept for longer than a surplus process is.
            longer = _TENANTS_LONGER if ttl is None else 1
            doomed = [w for rank, w in enumerate(idle) if w.last_used < now - kept * (longer if rank < _TENANTS_KEPT else 1)]
            for key in keys:
                runtime._workers[key] = [worker for worker in runtime._workers[key] if worker not in doomed]
        runtime.kill_workers(doomed)
        return len(doomed) + int(original(ttl))

    return reap


def _invalidate_with_tenants(runtime: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def invalidate(func_name: str, qualifier: str | None = None, account: str | None = None, region: str | None = None) -> None:
        original(func_name, qualifier, account, region)
        if qualifier is None:
            return  # the original took every worker of the function
        with runtime._lock:
            keys = [key.split(":") for key in runtime._workers if _TENANT_MARK in key]
        for *_, name, tenant_qualifier in keys:
            if name == func_name and tenant_qualifier.split(_TENANT_MARK)[0] == qualifier:
                original(func_name, tenant_qualifier, account, region)

    return invalidate


def _invoke_for_tenant(functions: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    async def invoke(name: str, event: Any, headers: dict[str, str], *args: Any, **kwargs: Any) -> Any:
        config = (functions._functions.get(name) or {}).get("config") or {}
        isolated = (config.get("TenancyConfig") or {}).get("TenantIsolationMode") == "PER_TENANT"
        tenant = headers.get("x-amz-tenant-id", "")
        problem = ""
        if isolated and not tenant:
            problem = "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
        elif tenant and not isolated:
            problem = (
                "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again."
            )
        elif tenant and not _TENANT_ID.fullmatch(tenant):
            problem = "The tenant ID is not valid."
        if problem:
            return functions.error_response_json("InvalidParameterValueException", problem, 400)
        token = _tenant.set(tenant)
        try:
            return await original(name, event, headers, *args, **kwargs)
        finally:
            _tenant.reset(token)

    return invoke


def _credentials_with_role_id(original: Callable[..., Any]) -> Callable[..., Any]:
    def credentials(config: dict[str, Any]) -> Any:
        found = original(config)
        session = load("ministack.services.sts")._sessions.get(found["AWS_ACCESS_KEY_ID"])
        if session is not None:
            account, role = session["Arn"].split(":")[4], session["Arn"].split("/")[1]
            record = load("ministack.services.iam")._roles.get_scoped(account, None, role) or {}
            name = session["Arn"].split("/")[-1]
            session["UserId"] = f"{record.get('RoleId', role)}:{name}"
            keep_function(session, str(config["FunctionArn"]))
        return found

    return credentials


def _restore_from_the_start(functions: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def restore(data: Any) -> None:
        original(data)
        # The records of a table's stream are not kept, so a kept position would lie beyond their end, and the mapping be dead. Without
        # a position the first record would be passed over, since the emulator looks for the end when there is something to read.
        for mapping in functions._esms._data:
            functions._dynamodb_stream_positions._data[mapping] = 0

    return restore


def _dispatch_with_retry(functions: Any) -> Callable[..., Any]:
    def dispatch(arn: str, payload: str) -> None:
        func, config, name = functions._get_func_record_for_ref(arn)
        if not func or not config:
            _LOG.error("EventBridge: there is no function %s", name)
            return
        functions.invoke_async_with_retry(functions._execution_record_for_config(func, config), json.loads(payload))

    return dispatch
