"""Moving the files of jobs between S3 and this machine, as the services' agents do."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from attestry.local.jobs.job import JobFailedError
from attestry.sandbox.paths import check_relative_path


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def download_prefix(s3: Any, uri: str, folder: Path) -> int:
    """Download everything below a prefix, and return how many files that was.

    Raises:
        JobFailedError: S3 refuses, or there is nothing.
    """
    bucket, prefix = split(uri)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                target = folder / check_relative_path(entry["Key"].removeprefix(prefix).lstrip("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, entry["Key"], str(target))
                count += 1
    except ClientError as error:
        raise JobFailedError(f"ClientError: Data download failed: {uri}: {error}") from error
    if not count:
        raise JobFailedError(f"ClientError: Data download failed: no S3 objects found under {uri}")
    return count


def download(s3: Any, uri: str, target: Path) -> None:
    """Download one object.

    Raises:
        JobFailedError: S3 refuses.
    """
    bucket, key = split(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        s3.download_file(bucket, key, str(target))
    except ClientError as error:
        raise JobFailedError(f"ClientError: {uri} cannot be read: {error}") from error


def upload_folder(s3: Any, folder: Path, uri: str) -> None:
    """Upload the files of a folder below a prefix.

    Raises:
        JobFailedError: S3 refuses.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        upload(s3, file, f"{uri.rstrip('/')}/{file.relative_to(folder).as_posix()}")


def upload(s3: Any, file: Path, uri: str) -> None:
    """Upload one file.

    Raises:
        JobFailedError: S3 refuses.
    """
    bucket, key = split(uri)
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    except ClientError as error:
        raise JobFailedError(f"ClientError: {uri} cannot be written: {error}") from error


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder's content as the services do: `tar.gz`, without a leading folder."""
    with tarfile.open(archive, "w:gz") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, arcname=entry.name)
