"""A server that speaks S3, and the tiny run on a disk."""

from collections.abc import Callable, Iterator

import pytest
from storage_runs import Bucket, Disk, snakemake

from tests.data.conftest import coco_tree

__all__ = ["coco_tree"]

NewBucket = Callable[[str], Bucket]


@pytest.fixture(scope="session")
def new_bucket() -> Iterator[NewBucket]:
    """Start moto's server on the loopback address; return a function that makes a bucket there."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    s3 = boto3.resource(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )

    def made(name: str) -> Bucket:
        return Bucket(endpoint, name, s3.create_bucket(Bucket=name))

    yield made
    server.stop()


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """Make the tiny run on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    snakemake(folder, "--cores", "1")
    return Disk(folder)
