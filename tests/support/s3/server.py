"""Starts versitygw, an S3 server over a folder, for tests. Built once from its Go module, as the control plane is."""

import http.client
import secrets
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.controlplane.gobuild import GoModule, cached_programs
from tests.support.controlplane.process import ProcessGroup, Program, free_port

PROGRAM = "versitygw"
MODULE = GoModule("s3", Path(__file__).parent, {PROGRAM: "github.com/versity/versitygw/cmd/versitygw"})
HEALTH = "/health"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one empty bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    processes: ProcessGroup
    region: str = "us-east-1"

    @classmethod
    @contextmanager
    def start(cls, bucket: str = "store") -> Iterator["S3Server"]:
        """Start a server, which is gone, with all that it stored, when the context ends.

        Raises:
            BuildError: it was not in the cache and could not be built.
            ServerError: it did not come up.
        """
        program = cached_programs(MODULE, [PROGRAM])[PROGRAM]
        folder = Path(tempfile.mkdtemp(prefix="bessemer-s3-"))
        processes = ProcessGroup(folder, [folder])
        address = f"127.0.0.1:{free_port()}"
        server = cls(f"http://{address}", "test", secrets.token_hex(16), bucket, processes)
        try:
            processes.start(server._program(program, folder, address))
            yield server
        finally:
            processes.close()
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a client in another process needs to know, as the usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def _program(self, program: Path, folder: Path, address: str) -> Program:
        buckets, metadata = folder / "buckets", folder / "metadata"
        (buckets / self.bucket).mkdir(parents=True)  # a bucket is a folder
        metadata.mkdir()
        keys = {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}
        # Metadata beside the objects, because not every temporary folder has extended attributes.
        backend = ["posix", f"--sidecar={metadata}", str(buckets)]
        arguments = [f"--port={address}", f"--region={self.region}", f"--health={HEALTH}", *backend]
        return Program(PROGRAM, [program, *arguments], env=keys, is_ready=self._is_healthy)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint + HEALTH, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # not listening yet
            return False
