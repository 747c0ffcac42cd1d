"""Files that clients send: the body of a request as a stream, and the file of a multipart form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from gateway.http.errors import BadRequest
from gateway.reads import ReadService

WRITE_BYTES = 1 << 20
"""What is written to the file at a time, in the pool."""


class BodyStream:
    """The body of a request, as it arrives. `length` is what the client says, if it does."""

    def __init__(self, receive: Receive, content_type: str, length: int | None) -> None:
        self.content_type = content_type
        self.length = length
        self._receive = receive

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in parts. Raises BadRequest when the client disconnects."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("the client went away before the body was complete")
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body"):
                return


async def save_file(stream: BodyStream, field: str, path: Path, reads: ReadService, check: Callable[[], None]) -> None:
    """Writes the file in the field `field` of a multipart form to the new file `path`.

    Calls `check` before each part is written. Raises BadRequest for another body.
    """
    kind, options = parse_options_header(stream.content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("the body must be a form, multipart/form-data, with a boundary")
    with path.open("xb") as file:
        form = _Form(field, boundary)
        try:
            async for chunk in stream.chunks():
                form.parser.write(chunk)
                if len(form.data) >= WRITE_BYTES:
                    await _write(form, file, reads, check)
            form.parser.finalize()
        except MultipartParseError as error:
            raise BadRequest(f"the form cannot be read: {error}") from error
        await _write(form, file, reads, check)
    if not form.is_complete:
        raise BadRequest(f"{field}: the form has no such file, or it is incomplete")


async def _write(form: _Form, file: BinaryIO, reads: ReadService, check: Callable[[], None]) -> None:
    data = bytes(form.data)
    form.data.clear()

    def write() -> None:
        check()
        file.write(data)

    await reads.offload(False, write)


class _Form:
    """Collects the data of one field of a form; `is_complete` once the field has ended, and the form too."""

    def __init__(self, field: str, boundary: bytes) -> None:
        self.data = bytearray()
        self.is_complete = False
        self._field = field.encode()
        self._header, self._value = b"", b""
        self._name: bytes | None = None
        self._seen = False
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._add,
                "on_header_field": self._add_header,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._name = None

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
            if self._name == self._field:
                if self._seen:
                    raise BadRequest(f"{self._field.decode()}: the form has two of them")
                self._seen = True
        self._header, self._value = b"", b""

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._field:
            self.data += data[start:end]

    def _end(self) -> None:
        self.is_complete = self._seen
