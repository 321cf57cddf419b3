"""librdkafka's own mock cluster, by its C API, in the library that confluent_kafka brings: a broker that listens on
this machine and answers the next requests of a kind with the errors it is told to."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka

PRODUCE, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 22, 24, 25, 26, 28
PRODUCER = 0


@cache
def library() -> Any:
    """The library that the clients use: the same file, so the same one in memory."""
    package = Path(confluent_kafka.__file__).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    lib = ctypes.CDLL(str(found[0]))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    lib.rd_kafka_mock_get_requests.restype = ctypes.POINTER(ctypes.c_void_p)
    lib.rd_kafka_mock_request_api_key.restype = ctypes.c_int16
    return lib


class MockCluster:
    """One broker."""

    def __init__(self, cluster: int) -> None:
        self._cluster = ctypes.c_void_p(cluster)
        self.bootstrap: str = library().rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create(self, topic: str, partitions: int = 1) -> None:
        assert library().rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == 0

    def push(self, api: int, codes: Sequence[int]) -> None:
        """The next requests of this kind fail so; `_TRANSPORT` cuts the connection."""
        library().rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(api), ctypes.c_size_t(len(codes)), (ctypes.c_int * len(codes))(*codes))

    def delay(self, api: int, ms: int, code: int = 0) -> None:
        """The next request of this kind is answered so, and so much later."""
        assert library().rd_kafka_mock_broker_push_request_error_rtts(
            self._cluster, ctypes.c_int32(1), ctypes.c_int16(api), ctypes.c_size_t(1), ctypes.c_int(code),
            ctypes.c_int(ms)) == 0

    def clear(self, *apis: int) -> None:
        for api in apis:
            library().rd_kafka_mock_clear_request_errors(self._cluster, ctypes.c_int16(api))

    def requests(self) -> list[int]:
        """The kinds of the requests since this was last asked, in order."""
        lib, count = library(), ctypes.c_size_t()
        got = lib.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        kinds = [int(lib.rd_kafka_mock_request_api_key(ctypes.c_void_p(got[at]))) for at in range(count.value)]
        lib.rd_kafka_mock_request_destroy_array(got, count)
        lib.rd_kafka_mock_clear_requests(self._cluster)
        return kinds


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    lib = library()
    why = ctypes.create_string_buffer(512)
    host = lib.rd_kafka_new(PRODUCER, ctypes.c_void_p(lib.rd_kafka_conf_new()), why, ctypes.c_size_t(len(why)))
    assert host, why.value
    cluster = lib.rd_kafka_mock_cluster_new(ctypes.c_void_p(host), 1)
    lib.rd_kafka_mock_start_request_tracking(ctypes.c_void_p(cluster))
    try:
        yield MockCluster(cluster)
    finally:
        lib.rd_kafka_mock_cluster_destroy(ctypes.c_void_p(cluster))
        lib.rd_kafka_destroy(ctypes.c_void_p(host))
