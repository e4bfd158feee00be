"""The registry's HTTP API, called with the caller's AWS credentials or a bearer token.

    client = RegistryClient()                  # the usual AWS credential chain, the address from SSM or ATTESTRY_API_URL
    client.predict("tumour-diagnosis", [{"mean radius": 14.1, ...}])

Every method returns the answer's JSON as it came, and raises `ApiError` for an error of the registry.
"""

from __future__ import annotations

from attestry.client.routes.access import AccessRoutes
from attestry.client.routes.acts import ActsRoutes
from attestry.client.routes.administration import AdministrationRoutes
from attestry.client.routes.catalogue import CatalogueRoutes
from attestry.client.routes.custody import CustodyRoutes
from attestry.client.routes.imports import ImportRoutes
from attestry.client.routes.proofs import ProofsRoutes
from attestry.client.routes.reads import ReadsRoutes
from attestry.client.routes.runs import RunRoutes
from attestry.client.routes.webhooks import WebhookRoutes


class RegistryClient(
    ReadsRoutes,
    ActsRoutes,
    ProofsRoutes,
    AdministrationRoutes,
    AccessRoutes,
    CatalogueRoutes,
    CustodyRoutes,
    ImportRoutes,
    RunRoutes,
    WebhookRoutes,
):
    """The routes of the API, a method each; its arguments are those of `Connection`."""
