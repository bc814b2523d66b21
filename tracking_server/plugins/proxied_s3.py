"""Artifacts on S3 that pass through the server alone, in the one place that is meant for them.

MLflow's own S3 store lets the server hand out signed addresses of the object store, and clients
then fetch every file from there. In a stack whose object store only the server reaches, each
download would hang for minutes. This store offers no such addresses, so clients ask the server.

It also opens no other place: who may write a trace may name any as the place of its files, and the
server would read it for whoever asks: its own disk, or what belongs to others in the bucket.
"""

import os
from typing import Any, NoReturn

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository


class ProxiedS3(ArtifactRepository):
    """MLflow's S3 store less what makes a server advertise direct transfers."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        if artifact_uri.rstrip("/") != os.environ["MLFLOW_ARTIFACTS_DESTINATION"]:
            closed(artifact_uri)
        super().__init__(artifact_uri, *args, **kwargs)
        self._store = S3ArtifactRepository(artifact_uri)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        self._store.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        self._store.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        return self._store.list_artifacts(path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """One object a call: the call for many needs a checksum that older stores insist on."""
        bucket, root = self._store.parse_s3_compliant_uri(self.artifact_uri)
        place = "/".join(part.strip("/") for part in (root, artifact_path) if part)
        client = self._store._get_s3_client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=place)
        for each in (each for page in pages for each in page.get("Contents", [])):
            if f"{each['Key']}/".startswith(f"{place}/"):
                client.delete_object(Bucket=bucket, Key=each["Key"])

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._store._download_file(remote_file_path, local_path)


def closed(artifact_uri: str, *args: Any, **kwargs: Any) -> NoReturn:
    """In place of a store that is not to be opened."""
    raise MlflowException(f"{artifact_uri} is closed", error_code=PERMISSION_DENIED)
