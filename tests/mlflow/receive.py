"""Runs in MLflow's own environment: what MLflow makes of requests that a webhook received. Prints it as JSON; the test judges.

Reads a list of `{"secret", "id", "timestamp", "body"}`, and prints for each the signature that MLflow's own server would have sent, and the
fields in which the payload differs from its type.
"""

import json
import sys

from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.webhooks.delivery import _generate_hmac_signature
from mlflow.webhooks.types import get_payload_class_for_event

told = []
for request in json.load(sys.stdin):
    body = json.loads(request["body"])
    event = WebhookEvent(WebhookEntity(body["entity"]), WebhookAction(body["action"]))
    fields = set(get_payload_class_for_event(event).__annotations__)
    told.append(
        {
            "signature": _generate_hmac_signature(request["secret"], request["id"], request["timestamp"], request["body"]),
            "differs": sorted(fields ^ set(body["data"])),
        }
    )
print(json.dumps(told))
