"""Runs in MLflow's own environment: makes, changes, tests and removes a webhook with its client, and writes what that understood as JSON.

Arguments: the registry's URL, and the webhook's.
"""

import json
import sys

import mlflow
from mlflow.entities.webhook import WebhookEvent
from mlflow.exceptions import MlflowException
from mlflow.webhooks.delivery import _generate_hmac_signature

registry, url = sys.argv[1:3]
client = mlflow.MlflowClient(tracking_uri=registry, registry_uri=registry)


def shown(webhook):
    return [webhook.name, webhook.url, sorted(map(str, webhook.events)), webhook.description, str(webhook.status)]


def error_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except MlflowException as error:
        return error.error_code
    return ""


made = client.create_webhook(
    "ci", url, ["registered_model.created", "model_version_tag.set"], description="builds", secret="s3cret-of-ours"
)
told = {"made": shown(made), "got": shown(client.get_webhook(made.webhook_id)), "id": made.webhook_id}
told["secret"] = made.secret
told["listed"] = [w.webhook_id for w in client.list_webhooks()]
changed = client.update_webhook(made.webhook_id, description="more builds", events=["model_version_alias.created"], status="DISABLED")
told["changed"] = shown(changed)
result = client.test_webhook(made.webhook_id)
told["tested"] = [result.success, result.response_status, result.error_message]
told["other_event"] = client.test_webhook(made.webhook_id, event=WebhookEvent.from_str("model_version_tag.deleted")).success
told["bad_event"] = error_of(client.create_webhook, "x", url, ["prompt.created"])
told["bad_url"] = error_of(client.create_webhook, "x", "https://10.0.0.1/", ["registered_model.created"])
client.delete_webhook(made.webhook_id)
told["gone"] = error_of(client.get_webhook, made.webhook_id)
told["signature"] = _generate_hmac_signature("s3cret-of-ours", "test_1", "1767323045", '{"a": 1}')
print(json.dumps(told))
