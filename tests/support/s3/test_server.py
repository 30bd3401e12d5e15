"""What the tests of the store on S3 take for granted about the server that they run on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from tests.support.s3 import S3Server

pytestmark = pytest.mark.e2e
WRITERS = 16


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server.start() as running:
        yield running


@pytest.fixture
def store(server: S3Server) -> S3Store:
    return S3Store(
        server.bucket,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.region,
        client_options={"allow_http": True},
    )


def test_an_object_reads_back_as_written(store: S3Store) -> None:
    obstore.put(store, "folder/object", b"content")
    assert bytes(obstore.get(store, "folder/object").bytes()) == b"content"


def test_creating_an_object_that_exists_is_refused_and_leaves_it_alone(store: S3Store) -> None:
    obstore.put(store, "record", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "record", b"second", mode="create")
    assert bytes(obstore.get(store, "record").bytes()) == b"first"


def test_of_many_who_create_one_object_at_once_exactly_one_succeeds(store: S3Store) -> None:
    def has_created(writer: int) -> bool:
        try:
            obstore.put(store, "contested", str(writer).encode(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        created = list(pool.map(has_created, range(WRITERS)))
    winners = [writer for writer, has_won in enumerate(created) if has_won]
    assert [str(winner).encode() for winner in winners] == [bytes(obstore.get(store, "contested").bytes())]
