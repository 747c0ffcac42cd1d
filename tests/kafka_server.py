"""Real Apache Kafka for tests: one KRaft node, broker and controller in one process, or a cluster of three of them.

Java runs it from jars that Maven fetches once (infra/kafka/pom.xml); where Java or Maven is missing, Docker runs the public
image instead, behind the same class; a cluster needs Java. Nothing is simulated, so a test may kill a broker, or make it
stand still, and start it again.

    with KafkaServer(tmp_path) as kafka:
        producer = Producer({"bootstrap.servers": kafka.bootstrap})

    with KafkaCluster(tmp_path) as kafka:
        kafka.leader_of("topic", 0).kill()

A broker never outlives the tests, not even when they are killed: a shell beside Java waits on a pipe that only this process
holds, and kills Java when the pipe closes without a word. (PR_SET_PDEATHSIG would be shorter, but it fires when the thread
that started the broker ends.)
"""

import atexit
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self, TypeVar

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from confluent_kafka.admin._metadata import ClusterMetadata, PartitionMetadata
    from testcontainers.core.container import DockerContainer

Result = TypeVar("Result")

KAFKA_VERSION = "4.1.1"
OLDEST_JAVA = 17
FETCH_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 600, 60, 30
POLL_S = 0.05
BROKER_PORTS, CONTROLLER_PORTS = range(20_000, 26_000), range(26_000, 32_000)
REPO = Path(__file__).resolve().parent.parent
JARS = REPO / ".cache" / f"kafka-{KAFKA_VERSION}"
WATCHED = 'exec 3<&0; (read -r released <&3 || kill -9 $$) & exec "$@" 3<&- </dev/null'


def available() -> str | None:
    """None if a broker can run here, by Java or by Docker; else why not, in one line."""
    without_java = why_not_java()
    without_docker = without_java and why_not_docker()
    return f"no Kafka broker can run here: {without_java}; {without_docker}" if without_docker else None


def kafka_or_skip(data_dir: Path | None = None) -> "KafkaServer":
    """A started broker for a fixture, which must stop it. Where none can run the test is skipped; in CI it fails."""
    if reason := available():
        skip(reason)
    if why_not_java() is not None:
        return testcontainers_server().start()
    if data_dir is None:
        data_dir = Path(tempfile.mkdtemp(prefix="kafka-"))
        atexit.register(shutil.rmtree, data_dir, ignore_errors=True)
    return KafkaServer(data_dir).start()


def kafka_cluster_or_skip(data_dir: Path) -> "KafkaCluster":
    """A started cluster for a fixture, which must stop it. Without Java the test is skipped; in CI it fails."""
    if reason := why_not_java():
        skip(f"three brokers need Java and Maven: {reason}")
    return KafkaCluster(data_dir).start()


def testcontainers_server() -> "KafkaServer":
    """A broker, not yet started, in a container of the public image: the fallback where Java or Maven is missing."""
    return _ContainerServer()


testcontainers_server.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's to pytest


def fetch_jars() -> Path:
    """The folder with the broker's jars, fetched on first use. Processes that ask at once wait for the one that fetches."""
    if JARS.exists():
        return JARS
    JARS.parent.mkdir(exist_ok=True)
    with (JARS.parent / f"{JARS.name}.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=JARS.parent) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not JARS.exists():
            (JARS.parent / ".gitignore").write_text("*\n")
            into = Path(scratch) / "jars"
            maven = ["mvn", "-q", "-B", "-f", str(REPO / "infra/kafka/pom.xml"), f"-Dkafka.version={KAFKA_VERSION}"]
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={into}"]
            done = subprocess.run([*maven, *goal], capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
            if done.returncode != 0:
                raise RuntimeError(f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{(done.stdout + done.stderr)[-2000:]}")
            into.rename(JARS)  # all of it or nothing
    return JARS


class KafkaServer:
    """A broker at `bootstrap`. Its port and the data in `data_dir` (with `broker.log`) outlast stop, kill and restart."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "broker.log"
        self.port = free_port(BROKER_PORTS)
        self.controller_port = free_port(CONTROLLER_PORTS)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.node_id, self.cluster_id = 1, secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Returns when the broker answers and every partition has a leader; else RuntimeError with the log's last complaints."""
        if self._running():
            raise RuntimeError(f"the broker at {self.bootstrap} is already running")
        self.kill()  # what is left of one that died by itself
        self._launch()
        if not self._answers():
            complaints = "\n".join([line for line in self._log().splitlines() if " INFO " not in line][-30:])
            self.kill()
            raise RuntimeError(f"no Kafka broker came up at {self.bootstrap}; {self.log_path} complains last:\n{complaints}")
        return self

    def stop(self) -> None:
        """A clean shutdown (SIGTERM), turned into a kill after STOP_TIMEOUT_S. Does nothing when the broker is down."""
        if self._process is not None:
            self._process.terminate()
            self.resume()  # one that stands still would not notice
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """A crash (SIGKILL). Does nothing when the broker is down."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(b"released\n")  # waits for Java's end, and lets the watching shell go
            self._process = None

    def pause(self) -> None:
        """The broker stands still (SIGSTOP): its connections stay open, and nobody answers. Does nothing when it is down."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # or it might answer once more

    def resume(self) -> None:
        """It goes on where it stood (SIGCONT). Does nothing when it was not paused."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> Self:
        """The same data at the same port again, after a clean stop if the broker still runs."""
        self.stop()
        return self.start()

    def _launch(self) -> None:
        logs, config = self.data_dir / "logs", self.data_dir / "server.properties"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config.write_text("".join(f"{key}={value}\n" for key, value in self._settings("127.0.0.1", logs).items()))
        java = ["java", "-Xmx400m", "-XX:+UseSerialGC", "-cp", f"{fetch_jars()}/*"]
        with self.log_path.open("ab") as log:
            if not (logs / "meta.properties").exists():
                tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={self.cluster_id}", "-c", str(config)]
                tool += self._format_arguments()
                subprocess.run([*java, *tool], stdout=log, stderr=log, timeout=START_TIMEOUT_S)  # if it fails, the broker will
            command = ["sh", "-c", WATCHED, "sh", *java, "kafka.Kafka", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def _format_arguments(self) -> list[str]:
        """Further arguments of the tool that prepares the data folder."""
        return []

    def _settings(self, listen: str, logs: Path) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": self._voter(),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{listen}:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(logs),
            "broker.session.timeout.ms": "2000",  # how long the controller waits for a killed broker before it lets a new one in
            "broker.heartbeat.interval.ms": "500",
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }

    def _voter(self) -> str:
        return f"{self.node_id}@127.0.0.1:{self.controller_port}"

    def _answers(self) -> bool:
        return _metadata(self.bootstrap, self._is_ready, hoping=self._running) is not None

    def _is_ready(self, metadata: "ClusterMetadata") -> bool:
        return bool(metadata.brokers) and _all_led(metadata)

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")


class _ContainerServer(KafkaServer):
    """The same broker in a container, which holds its data and is removed when the tests end."""

    def __init__(self) -> None:
        super().__init__(data_dir=Path("/tmp/kafka"))  # inside the container
        self._container: DockerContainer | None = None

    def stop(self) -> None:
        self.resume()  # a paused container takes no other order
        if self._container is not None and self._running():
            self._container.get_wrapped_container().stop(timeout=STOP_TIMEOUT_S)

    def kill(self) -> None:
        self.resume()
        if self._container is not None and self._running():
            self._container.get_wrapped_container().kill()
            self._container.get_wrapped_container().wait(timeout=STOP_TIMEOUT_S)

    def pause(self) -> None:
        if self._container is not None and self._running():
            self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        if self._container is not None and self._status() == "paused":
            self._container.get_wrapped_container().unpause()

    def _launch(self) -> None:
        from testcontainers.core.container import DockerContainer

        if self._container is not None:
            self._container.get_wrapped_container().start()
            return
        settings = self._settings("0.0.0.0", self.data_dir)
        variables = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}
        _let_go_without_reaper()
        container = DockerContainer(f"apache/kafka:{KAFKA_VERSION}").with_envs(**variables, KAFKA_HEAP_OPTS="-Xmx400m")
        self._container = container.with_bind_ports(self.port, self.port)
        atexit.register(self._container.stop)  # removes it; if the tests are killed, testcontainers' reaper does
        self._container.start()

    def _running(self) -> bool:
        return self._status() == "running"

    def _status(self) -> str:
        if self._container is None:
            return "not created"
        self._container.reload()
        return self._container.status

    def _log(self) -> str:
        return b"".join(self._container.get_logs()).decode(errors="replace") if self._container is not None else ""


class ProxiedPorts(NamedTuple):
    """Where a broker listens for what a proxy forwards, and where it tells clients to find it: there the proxy must listen."""

    listens: int
    advertises: int


class ClusterBroker(KafkaServer):
    """One of a cluster. It starts as soon as a majority of them is up, whichever partitions lack a leader then.

    Clients that come to its second listener, PROXIED, are sent to the `proxied.advertises` ports of all brokers, and so never
    learn a way around the proxies.
    """

    def __init__(self, cluster: "KafkaCluster", node_id: int) -> None:
        super().__init__(cluster.data_dir / f"broker-{node_id}")
        self.node_id, self.cluster_id = node_id, cluster.cluster_id
        self.proxied = ProxiedPorts(free_port(BROKER_PORTS), free_port(BROKER_PORTS))
        self._cluster = cluster

    def _settings(self, listen: str, logs: Path) -> dict[str, str]:
        alone = super()._settings(listen, logs)
        return alone | {
            "controller.quorum.voters": ",".join(broker._voter() for broker in self._cluster.brokers),
            "controller.quorum.election.timeout.ms": "1000",
            "controller.quorum.fetch.timeout.ms": "1000",  # how long the others wait for a silent controller before they vote
            "controller.socket.timeout.ms": "2000",  # for 30 s else a producer's id is asked of a controller that was just paused
            "listeners": f"{alone['listeners']},PROXIED://{listen}:{self.proxied.listens}",
            "advertised.listeners": f"{alone['advertised.listeners']},PROXIED://127.0.0.1:{self.proxied.advertises}",
            "listener.security.protocol.map": f"{alone['listener.security.protocol.map']},PROXIED:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",  # a proxy stands between clients and brokers, not among brokers
            "unclean.leader.election.enable": "false",
            "offsets.topic.replication.factor": "3",
            "transaction.state.log.replication.factor": "3",
            "transaction.state.log.min.isr": "2",
        }

    def _is_ready(self, metadata: "ClusterMetadata") -> bool:
        return self.node_id in metadata.brokers

    def _sees_all_in_sync(self) -> bool:
        return _metadata(self.bootstrap, self._in_sync, hoping=self._running) is not None

    def _in_sync(self, metadata: "ClusterMetadata") -> bool:
        own = metadata.orig_broker_id in (-1, self.node_id)  # or another was asked; -1 is the bootstrap address
        lagging = [partition for partition in _partitions(metadata) if len(partition.isrs) < len(partition.replicas)]
        return own and len(metadata.brokers) == len(self._cluster.brokers) and _all_led(metadata) and not lagging


class KafkaCluster:
    """Brokers that replicate to each other, at `bootstrap`; each may be killed, paused and started on its own.

    Two of three are a majority: with one down all goes on, with two down nothing does. Ports and data outlast stop and start.
    """

    def __init__(self, data_dir: Path, brokers: int = 3) -> None:
        self.data_dir = data_dir
        self.cluster_id = secrets.token_urlsafe(16)
        self.brokers = [ClusterBroker(self, node_id) for node_id in range(1, brokers + 1)]
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers)
        self.proxied_bootstrap = ",".join(f"127.0.0.1:{broker.proxied.advertises}" for broker in self.brokers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Starts the brokers that are down and resumes the paused; returns when all answer and all replicas are led and in sync.

        So it also heals a cluster between two faults. If it fails, no broker is left running.
        """
        try:
            self._at_once(KafkaServer.resume, self.brokers)
            self._at_once(KafkaServer.start, (broker for broker in self.brokers if not broker._running()))
            self.wait_in_sync()
        except BaseException:
            self._at_once(KafkaServer.kill, self.brokers)
            raise
        return self

    def stop(self) -> None:
        """A clean shutdown of all brokers."""
        self._at_once(KafkaServer.stop, self.brokers)

    def leader_of(self, topic: str, partition: int) -> ClusterBroker:
        """As a broker that answers tells it now; waits for a leader where none is. A killed one is never told.

        The controller notices a paused leader after its session, 2 s; one that was just resumed may still think that it leads.
        """
        running = {broker.node_id: broker for broker in self.brokers if broker._running()}
        metadata = _metadata(self.bootstrap, lambda metadata: _leader(metadata, topic, partition) in running)
        if metadata is None:
            raise RuntimeError(f"no leader for {topic}[{partition}] in {START_TIMEOUT_S} s")
        return running[_leader(metadata, topic, partition)]

    def wait_in_sync(self) -> None:
        """Returns when every broker says that all brokers are up and all replicas in sync, so that any one may be lost next.

        One that was just resumed says so as of before its pause; then the others know better, hence all are asked.
        """
        if not all(self._at_once(ClusterBroker._sees_all_in_sync, self.brokers)):
            raise RuntimeError(f"the brokers at {self.bootstrap} are not in sync after {START_TIMEOUT_S} s, or not all up")

    def _at_once(self, act: Callable[[ClusterBroker], Result], brokers: Iterable[ClusterBroker]) -> list[Result]:
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            return list(pool.map(act, brokers))


def _metadata(
    bootstrap: str, wanted: Callable[["ClusterMetadata"], bool], hoping: Callable[[], bool] = lambda: True
) -> "ClusterMetadata | None":
    """The first answer that is as wanted; None when there is no more hope, or none came in time.

    Each ask is a new client's: librdkafka puts it to any broker that the client has heard of, and an old one has a favourite.
    """
    settings = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 200, "log_level": 0}
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and hoping():
        with contextlib.suppress(KafkaException):
            metadata = AdminClient(settings).list_topics(timeout=1)
            if wanted(metadata):
                return metadata
        time.sleep(POLL_S)
    return None


def _partitions(metadata: "ClusterMetadata") -> list["PartitionMetadata"]:
    return [partition for topic in metadata.topics.values() for partition in topic.partitions.values()]


def _all_led(metadata: "ClusterMetadata") -> bool:
    return {partition.leader for partition in _partitions(metadata)} <= set(metadata.brokers)


def _leader(metadata: "ClusterMetadata", topic: str, partition: int) -> int:
    found = metadata.topics.get(topic)
    return found.partitions[partition].leader if found and partition in found.partitions else -1


def why_not_java() -> str | None:
    needed = ["java"] if JARS.exists() else ["java", "mvn"]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}"
    version = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=START_TIMEOUT_S).stderr
    found = re.search(r'version "(\d+)', version)
    return None if found and int(found[1]) >= OLDEST_JAVA else f"Java {OLDEST_JAVA} is needed, not {version.splitlines()[:1]}"


def _let_go_without_reaper() -> None:
    """Testcontainers removes what killed tests leave behind by a container of its own; where that cannot be had, it does not."""
    from docker.errors import DockerException
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.docker_client import DockerClient

    images = DockerClient().client.images
    try:
        if not images.list(testcontainers_config.ryuk_image):
            images.pull(testcontainers_config.ryuk_image)
    except DockerException:
        testcontainers_config.ryuk_disabled = True


def why_not_docker() -> str | None:
    try:
        from testcontainers.core.docker_client import DockerClient

        DockerClient().client.ping()
    except Exception as error:  # not installed, no daemon, not allowed: each has its own class
        return f"Docker does not answer ({error})".replace("\n", " ")
    return None


def skip(reason: str) -> NoReturn:
    """Skips the test; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


_given: set[int] = set()  # each to one broker, also while that is down


def free_port(choice: range) -> int:
    """A free port below the ephemeral ones: there, a client that retries while the broker is down can connect to itself and keep
    the port. At random, and not by the seed of the tests, so that parallel workers choose apart."""
    for port in SystemRandom().sample(choice, 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError(f"no free port among 100 of {choice}")
