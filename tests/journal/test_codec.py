"""Records as bytes: they come back, old ones stay readable, and nothing else gets in."""

import contextlib
import io
import json
from pathlib import Path

import fastavro
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import schemas
from journal.codec import HEADER_BYTES, MAGIC, DecodeError, Unstamped, decode, encode
from journal.hlc import MAX_STAMP
from journal.records import CATALOG_OPERATIONS, SHARD_OPERATIONS, Delete, Operation, Record, describe
from tests.journal.golden.generate import GOLDEN, SAMPLES, plain, record, write
from tests.journal.operations import records

VERSIONS = [name.removesuffix(".avsc") for name in schemas.RECORD_SCHEMAS]
GOLDEN_RECORDS = [path for version in VERSIONS for path in sorted((GOLDEN / version).glob("*.avro"))]
HEADER = encode(record(SAMPLES[0]))[:HEADER_BYTES]


@given(records)
def test_a_record_comes_back(sent: Record) -> None:
    """I8"""
    assert decode(encode(sent)) == sent


@pytest.mark.parametrize("path", GOLDEN_RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_record_written_by_any_version_stays_readable(path: Path) -> None:
    """I1: a log is kept for years; these files are never regenerated."""
    assert plain(decode(path.read_bytes())) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("operation", SAMPLES, ids=lambda operation: type(operation).__name__)
def test_the_latest_version_writes_what_it_always_wrote(operation: Operation) -> None:
    """I8: a change of the form is a new version."""
    golden = (GOLDEN / VERSIONS[-1] / f"{type(operation).__name__}.avro").read_bytes()
    assert encode(record(operation)) == golden
    assert golden.startswith(MAGIC)


def test_every_version_has_a_golden_file_for_each_of_its_operations() -> None:
    """I1"""
    for version, name in zip(VERSIONS, schemas.RECORD_SCHEMAS, strict=True):
        (union,) = (field["type"] for field in schemas.load(name)["fields"] if field["name"] == "operation")
        golden = {path.stem for path in (GOLDEN / version).glob("*.avro")}
        assert golden == {branch["name"] for branch in union}
    assert golden == {kind.__name__ for kind in (*SHARD_OPERATIONS, *CATALOG_OPERATIONS)}


def test_golden_files_are_not_written_twice() -> None:
    """I1"""
    with pytest.raises(FileExistsError):
        write(VERSIONS[0])


@given(st.binary(max_size=60) | st.builds(HEADER.__add__, st.binary(max_size=200)))
@example(b"")
@example(MAGIC)
@example(HEADER)
@example(HEADER + b"\x00" * 8 + b"\x63")
@example(b"\xc3\x02" + encode(record(SAMPLES[1]))[2:])
def test_any_bytes_are_a_record_or_a_decode_error(data: bytes) -> None:
    """I6: any producer can write any bytes."""
    try:
        found = decode(data)
    except DecodeError:
        return
    assert isinstance(found, Record)
    assert data.startswith(HEADER)


@given(records, st.data())
def test_a_damaged_record_is_a_record_or_a_decode_error(sent: Record, data: st.DataObject) -> None:
    """I6"""
    damaged = bytearray(encode(sent))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for found in (bytes(damaged), cut):
        with contextlib.suppress(DecodeError):
            assert isinstance(decode(found), Record)


@given(records, st.data())
def test_half_a_record_is_none(sent: Record, data: st.DataObject) -> None:
    """I6"""
    whole = encode(sent)
    with pytest.raises(DecodeError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_record_of_an_unknown_schema_says_how_it_starts() -> None:
    """I6: the reason goes to the dead letters."""
    unknown = MAGIC + bytes(8) + encode(record(Delete([])))[HEADER_BYTES:]
    with pytest.raises(DecodeError, match=unknown[:HEADER_BYTES].hex()):
        decode(unknown)


@given(records)
@example(Record(hlc=0, operation=Delete([])))
@example(Record(hlc=-1, operation=Delete([])))
@example(Record(hlc=63, operation=Delete([])))
@example(Record(hlc=64, operation=Delete([])))
@example(Record(hlc=2**55 - 1, operation=Delete([])))
@example(Record(hlc=2**55, operation=Delete([])))
@example(Record(hlc=2**62, operation=Delete([])))
@example(Record(hlc=MAX_STAMP, operation=Delete([])))
@example(Record(hlc=-MAX_STAMP - 1, operation=Delete([])))
def test_a_stamp_given_last_makes_the_bytes_that_the_schema_says(sent: Record) -> None:
    """I8: the same as Avro's own writer makes of the whole record."""
    body = {name: getattr(sent, name) for name in sent.__struct_fields__}
    body["operation"] = f"vecraft.v1.{type(sent.operation).__name__}", msgspec.to_builtins(sent.operation, builtin_types=(bytes,))
    body["ingested"] = None if sent.ingested is None else msgspec.to_builtins(sent.ingested)
    whole = io.BytesIO()
    fastavro.schemaless_writer(whole, fastavro.parse_schema(schemas.load(schemas.RECORD_SCHEMAS[-1])), body)
    unstamped = Unstamped(msgspec.structs.replace(sent, hlc=1))
    assert unstamped.stamped(sent.hlc) == HEADER + whole.getvalue()


@pytest.mark.parametrize("point_id", [b"", b"\x00", b"\x02\xff", b"\x09abc"])
def test_a_record_with_what_is_no_id_can_be_shown(point_id: bytes) -> None:
    assert describe(Delete([point_id])) == f"Delete 0x{point_id.hex()}, which is no id"
