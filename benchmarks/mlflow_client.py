"""Runs in MLflow's own environment: MLflow's client against the registry that MLFLOW_REGISTRY_URI names.

It reads orders, a JSON object a line: `act`, `model`, `versions` (how many there are), `times`, `seconds` (after which no call is begun),
`at_once` (threads), `first` (of the names and values that it makes), `sources`. It answers each with a line: how long each call took, in
seconds, and how long all took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow.tracking import MlflowClient

PAGE, WHOLE_PAGE = 100, 1000
STAGES = ("Staging", "Production")

Order = Mapping[str, Any]


def number_of(order: Order, index: int) -> str:
    """Return the version that the call with this index is about: all over the model."""
    return str(index * 7919 % int(order["versions"]) + 1)


def search_page(client: MlflowClient, order: Order) -> None:
    """Search the first page of a model's versions."""
    found = client.search_model_versions(f"name='{order['model']}'", max_results=PAGE)
    if len(found) != min(PAGE, int(order["versions"])):
        raise RuntimeError(f"the page has {len(found)} versions")


def full_scan(client: MlflowClient, order: Order) -> None:
    """Search all versions of a model, page by page."""
    seen, token = 0, None
    while seen == 0 or token:
        page = client.search_model_versions(f"name='{order['model']}'", max_results=WHOLE_PAGE, page_token=token)
        seen, token = seen + len(page), page.token
    if seen < int(order["versions"]):
        raise RuntimeError(f"the scan found {seen} versions")


ACTS: Mapping[str, Callable[[MlflowClient, Order, int], Any]] = {
    "create_model": lambda c, o, i: c.create_registered_model(f"{o['model']}-{i}"),
    "create_version": lambda c, o, i: c.create_model_version(o["model"], o["sources"][i - o["first"]], await_creation_for=None),
    "set_alias": lambda c, o, i: c.set_registered_model_alias(o["model"], "champion", number_of(o, i)),
    "get_by_alias": lambda c, o, _: c.get_model_version_by_alias(o["model"], "champion"),
    "transition": lambda c, o, i: c.transition_model_version_stage(o["model"], number_of(o, i), STAGES[i % 2]),
    "set_tag": lambda c, o, i: c.set_model_version_tag(o["model"], number_of(o, i), "measured", str(i)),
    "download_uri": lambda c, o, i: c.get_model_version_download_uri(o["model"], number_of(o, i)),
    "get_model": lambda c, o, _: c.get_registered_model(o["model"]),
    "get_version": lambda c, o, i: c.get_model_version(o["model"], number_of(o, i)),
    "search_page": lambda c, o, _: search_page(c, o),
    "full_scan": lambda c, o, _: full_scan(c, o),
}


def carry_out(client: MlflowClient, order: Order) -> dict[str, Any]:
    """Do what an order says, and return how long it took."""
    act, began = ACTS[order["act"]], time.perf_counter()
    deadline = began + float(order["seconds"])

    def once(index: int) -> float | None:
        if time.perf_counter() > deadline:
            return None
        start = time.perf_counter()
        act(client, order, index)
        return time.perf_counter() - start

    indexes = range(int(order["first"]), int(order["first"]) + int(order["times"]))
    with ThreadPoolExecutor(int(order["at_once"])) as pool:
        calls = [taken for taken in pool.map(once, indexes) if taken is not None]
    return {"calls": calls, "seconds": time.perf_counter() - began}


def main() -> None:
    """Carry out orders until there are no more."""
    warnings.simplefilter("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = MlflowClient()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            told = carry_out(client, order)
        except Exception as error:  # noqa: BLE001 - whatever it is, the benchmark has to be told
            told = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
