"""The plugin for MLflow: `MLFLOW_REGISTRY_URI=attestry://`, wherever tracking is.

MLflow's own client finds the pieces by their entry points:

- `attestry://` as a registry: a model's files are taken from where the client tracks, with the client's own rights, and uploaded
- `attestry://` as a place of files: downloads by presigned URLs, each file checked against the digest that was frozen
- `attestry` as a way to sign requests (`MLFLOW_TRACKING_AUTH=attestry`), for a client that talks to the registry by its `https://` address

`attestry://` alone is the registry of the AWS account: `ATTESTRY_API_URL`, else the SSM parameter `/attestry/api-url`. `attestry://host/path`
is the one at `https://host/path`. Credentials are the usual AWS ones, or a token in `ATTESTRY_TOKEN`.
"""
