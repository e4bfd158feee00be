"""Errors of the embedded AWS."""

from __future__ import annotations

from attestry.domain.errors import AttestryError


class LocalError(AttestryError):
    """The embedded AWS cannot do what was asked."""

    code = "local"


class PortTakenError(LocalError):
    """Another process listens on the port."""

    code = "port_taken"


class DataDirectoryError(LocalError):
    """The data directory is in use, or was made by something else."""

    code = "data_directory"


class NotRunningError(LocalError):
    """No server runs on the data directory."""

    code = "not_running"


class StartFailedError(LocalError):
    """The server did not come up; the message ends with the last lines of its log."""

    code = "start_failed"


class SynthesisError(LocalError):
    """The CDK application did not give a template; the message ends with the last lines of its output."""

    code = "synthesis_failed"


class DeploymentError(LocalError):
    """CloudFormation did not take the template; the message names the resources that failed."""

    code = "deployment_failed"
