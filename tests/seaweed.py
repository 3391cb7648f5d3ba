"""A real S3 server for tests: SeaweedFS on loopback, which ends with the test run."""

import json
import os
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from engine.launch.launcher import LocalLauncher

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY, SECRET, BUCKET = "test-key", "test-secret", "tensors"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


class SeaweedServer:
    """Master, volume, filer and S3 in one process, with one pair of keys and one bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = _free_ports(8)
        self.endpoint_url = f"http://127.0.0.1:{self.ports[0]}"

    def __enter__(self) -> Self:
        (self.folder / "data").mkdir(parents=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # Its files are not read again, so a clean stop is not needed.
        self.process.terminate(0.0)

    def start(self) -> None:
        """Start the server, at first or again on the same ports and data, and wait for it."""
        self.process = LocalLauncher().run(
            self._command(), env=dict(os.environ), log_path=self.folder / "log"
        )
        self._wait()

    def stop(self) -> None:
        """Stop the server in order, so that it has its data when it starts again."""
        self.process.terminate(STOP_SECONDS)

    def client(self) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )

    def _command(self) -> list[str]:
        options: dict[str, object] = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3": "true",
            "s3.config": self.folder / "s3.json",
            "s3.localSocket": self.folder / "s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "filer.localSocket": self.folder / "filer.sock",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 50,
        }
        parts = ("s3", "master", "volume", "filer")
        for part, port, grpc in zip(parts, self.ports[:4], self.ports[4:], strict=True):
            options[f"{part}.port"] = port
            options[f"{part}.port.grpc"] = grpc
        weed = Path(sys.executable).with_name("weed")
        return [str(weed), "server", *(f"-{name}={value}" for name, value in options.items())]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        client = self.client()
        while True:
            try:
                with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
                return
            except (BotoCoreError, ClientError):
                assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "SeaweedFS did not come up"
                time.sleep(0.1)


def _free_ports(num: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
