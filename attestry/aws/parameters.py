"""Parameters of Systems Manager: settings that are known only once the stack stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class SsmParameters:
    """Reads parameters by their names.

    Args:
        client: Systems Manager client.
    """

    def __init__(self, client: SSMClient) -> None:
        self._client = client

    def read(self, name: str) -> str:
        """Return a parameter's text.

        Raises:
            NotFoundError: there is no such parameter.
            UnavailableError: no answer.
        """
        try:
            return self._client.get_parameter(Name=name)["Parameter"]["Value"]
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"read the parameter {name}") from error
