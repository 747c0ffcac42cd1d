"""A bad network between clients and brokers: a TCP proxy that delays, cuts, or lets connections go silent.

    with proxies(cluster) as network:
        producer = Producer({"bootstrap.servers": cluster.proxied_bootstrap})
        network[0].cut()

After Shopify's toxiproxy, of which we need three toxics and no server. The sockets are read and written bare, without asyncio's
streams: those go on reading and sending behind the back of whoever stopped the traffic.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Self

from tests.kafka_server import KafkaCluster

CALL_TIMEOUT_S = 10
CHUNK_BYTES = 1 << 16
HELD_CHUNKS = 1024  # per direction; a sender with more on its way has to wait


@contextlib.contextmanager
def proxies(cluster: KafkaCluster) -> Iterator[list["TcpProxy"]]:
    """One before each broker, in their order, for clients that start at `cluster.proxied_bootstrap`."""
    with contextlib.ExitStack() as stack:
        ports = [broker.proxied for broker in cluster.brokers]
        yield [stack.enter_context(TcpProxy(port.advertises, port.listens)) for port in ports]


class TcpProxy:
    """Listens at `port` and forwards to `target_port`, both on this machine. A thread of its own carries the bytes."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port, self.target_port = port, target_port
        self._delay_s = 0.0
        self._silent = False
        self._connections: set[_Connection] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)
        self._thread.start()
        try:
            self._call(self._heal)
        except OSError:  # the port is taken
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def delay(self, seconds: float) -> None:
        """Holds each chunk that arrives from now on for that long, in each direction. The pipe gets longer, not narrower."""
        self._delay_s = seconds

    def cut(self) -> None:
        """Closes all connections, and refuses new ones until `heal`. What was on its way is lost."""
        self._call(self._cut)

    def half_open(self) -> None:
        """Until `heal` no byte and no end of a connection passes, while connections stay and new ones are accepted."""
        self._call(self._fall_silent)

    def heal(self) -> None:
        """Forwards again, without delay. Connections that were half open are closed: bytes of theirs are lost."""
        self._call(self._heal)

    def close(self) -> None:
        """Cuts for good. A second time it does nothing."""
        if not self._loop.is_closed():
            self._call(self._cut)
            self._end()

    def _call(self, act: Callable[[], Coroutine[None, None, None]]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(CALL_TIMEOUT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    async def _cut(self) -> None:
        await _cancelled(self._accepting)
        self._accepting = None
        await self._drop()

    async def _fall_silent(self) -> None:
        self._silent = True
        for connection in list(self._connections):
            await _cancelled(connection.carrying)

    async def _heal(self) -> None:
        if self._silent:
            await self._drop()
        self._silent, self._delay_s = False, 0.0
        if self._accepting is None:
            listener = socket.create_server(("127.0.0.1", self.port))
            self._accepting = self._loop.create_task(self._accept(listener))

    async def _drop(self) -> None:
        while self._connections:  # until none is left: while one ends, another may be accepted
            connection = self._connections.pop()
            await _cancelled(connection.carrying)
            connection.close()

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            listener.setblocking(False)
            while True:
                connection = _Connection((await self._loop.sock_accept(listener))[0])
                self._connections.add(connection)
                if not self._silent:
                    connection.carrying = self._loop.create_task(self._carry(connection))

    async def _carry(self, connection: "_Connection") -> None:
        """To the end of both directions, or to the first error; when it is cancelled instead, the sockets stay open."""
        client, target = connection.client, connection.target
        with contextlib.suppress(OSError):
            await self._loop.sock_connect(target, ("127.0.0.1", self.target_port))
            await _both(self._forward(client, target), self._forward(target, client))
        self._connections.discard(connection)
        connection.close()

    async def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)
        await _both(self._receive(source, held), self._send(held, sink))

    async def _receive(self, source: socket.socket, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        chunk = b"-"
        while chunk:
            chunk = await self._loop.sock_recv(source, CHUNK_BYTES)
            await held.put((self._loop.time() + self._delay_s, chunk))

    async def _send(self, held: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        chunk = b"-"
        while chunk:
            due, chunk = await held.get()
            await asyncio.sleep(due - self._loop.time())
            await self._loop.sock_sendall(sink, chunk)
        sink.shutdown(socket.SHUT_WR)  # the other direction may have more to say


class _Connection:
    """The socket of a client, the one to the target for it, and the task that carries bytes between them."""

    def __init__(self, client: socket.socket) -> None:
        self.client, self.target = client, socket.socket()
        self.carrying: asyncio.Task[None] | None = None
        for end in (self.client, self.target):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.client.close()
        self.target.close()


async def _both(*halves: Coroutine[None, None, None]) -> None:
    """Runs the two halves at once; the first error of one ends the other, and is raised."""
    tasks = [asyncio.ensure_future(half) for half in halves]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await _cancelled(task)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Returns when the task has ended, however it did."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
