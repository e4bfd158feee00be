"""Runs in MLflow's own environment: reads filters and orders as JSON, one a line, and writes what MLflow's parsers make of them."""

import json
import sys

from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils

PARSERS = {"models": SearchModelUtils.parse_search_filter, "versions": SearchModelVersionUtils.parse_search_filter}
ORDERS = {
    "models": lambda clause: SearchUtils.parse_order_by_for_search_registered_models(clause),
    "versions": lambda clause: SearchModelVersionUtils.parse_order_by_for_search_model_versions(clause)[1:],
}


def answer(asked):
    try:
        if "order" in asked:
            return {"order": list(ORDERS[asked["of"]](asked["order"]))}
        return {"conditions": [[c["type"], c["key"], c["comparator"], c["value"]] for c in PARSERS[asked["of"]](asked["filter"])]}
    except MlflowException as error:
        return {"error": error.error_code}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
