"""librdkafka's mock cluster, by its C interface (rdkafka_mock.h): brokers in this process that fail exactly when told to.

confluent_kafka does not wrap it, but carries the library. It speaks Kafka's protocol and keeps records; it is no broker: it
knows no CreateTopics, checks no sequence numbers, and acknowledges every record with the same time.
"""

import ctypes
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_int16, c_int32, c_size_t, c_void_p

from confluent_kafka import cimpl

PRODUCE, LIST_OFFSETS, OFFSET_FETCH = 0, 2, 9

_rdkafka = ctypes.CDLL(cimpl.__file__)  # looks symbols up in what the module is linked with, too


def _function(name: str, result: type | None, *arguments: type) -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    function = _rdkafka[name]
    function.restype, function.argtypes = result, arguments
    return function


_conf_new = _function("rd_kafka_conf_new", c_void_p)
_new = _function("rd_kafka_new", c_void_p, c_int, c_void_p, c_char_p, c_size_t)
_destroy = _function("rd_kafka_destroy", None, c_void_p)
_cluster_new = _function("rd_kafka_mock_cluster_new", c_void_p, c_void_p, c_int)
_cluster_destroy = _function("rd_kafka_mock_cluster_destroy", None, c_void_p)
_bootstraps = _function("rd_kafka_mock_cluster_bootstraps", c_char_p, c_void_p)
_topic_create = _function("rd_kafka_mock_topic_create", c_int, c_void_p, c_char_p, c_int, c_int)
_set_rtt = _function("rd_kafka_mock_broker_set_rtt", c_int, c_void_p, c_int32, c_int)
_push_errors = _function("rd_kafka_mock_push_request_errors_array", None, c_void_p, c_int16, c_size_t, c_void_p)

_clear_errors = _function("rd_kafka_mock_clear_request_errors", None, c_void_p, c_int16)


class MockCluster:
    """Brokers at `bootstrap`, until it is closed."""

    def __init__(self, brokers: int = 2) -> None:
        self._brokers = brokers
        self._client = _new(0, _conf_new(), None, 0)
        self._cluster = _cluster_new(self._client, brokers)
        self.bootstrap = _bootstraps(self._cluster).decode()

    def create_topic(self, topic: str, partitions: int) -> None:
        """Does nothing when the topic exists."""
        _topic_create(self._cluster, topic.encode(), partitions, 1)

    def answer_after(self, rtt_ms: int) -> None:
        """From now on every answer is held back that long; what was asked is done at once."""
        for broker in range(1, self._brokers + 1):
            _set_rtt(self._cluster, broker, rtt_ms)

    def refuse(self, api: int, errors: Iterable[int]) -> None:
        """The next requests of this kind do nothing and are answered with these errors."""
        codes = list(errors)
        _push_errors(self._cluster, api, len(codes), (c_int * len(codes))(*codes))

    def heal(self) -> None:
        """Answers at once, and refuses nothing more."""
        self.answer_after(0)
        for api in (PRODUCE, LIST_OFFSETS, OFFSET_FETCH):
            _clear_errors(self._cluster, api)

    def close(self) -> None:
        _cluster_destroy(self._cluster)
        _destroy(self._client)
