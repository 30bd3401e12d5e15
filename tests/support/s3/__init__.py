"""A real S3 server on this machine, for tests of what the store does on S3."""

from tests.support.s3.server import S3Server

__all__ = ["S3Server"]
