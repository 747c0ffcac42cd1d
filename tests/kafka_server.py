"""A real Apache Kafka broker for tests: one KRaft node, broker and controller in one process.

Java runs it from jars that Maven fetches once (infra/kafka/pom.xml); where Java or Maven is missing, Docker runs the public
image instead, behind the same class. Nothing is simulated, so a test may kill the broker and start it again.

    with KafkaServer(tmp_path) as kafka:
        producer = Producer({"bootstrap.servers": kafka.bootstrap})

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
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

KAFKA_VERSION = "4.1.1"
OLDEST_JAVA = 17
FETCH_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 600, 60, 30
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
    reason = available()
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    if why_not_java() is not None:
        return testcontainers_server().start()
    if data_dir is None:
        data_dir = Path(tempfile.mkdtemp(prefix="kafka-"))
        atexit.register(shutil.rmtree, data_dir, ignore_errors=True)
    return KafkaServer(data_dir).start()


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
        self.port = _free_port(range(20_000, 26_000))
        self.controller_port = _free_port(range(26_000, 32_000))
        self.bootstrap = f"127.0.0.1:{self.port}"
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
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """A crash (SIGKILL). Does nothing when the broker is down."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(b"released\n")  # waits for Java's end, and lets the watching shell go
            self._process = None

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
                tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={secrets.token_urlsafe(16)}", "-c", str(config)]
                subprocess.run([*java, *tool], stdout=log, stderr=log, timeout=START_TIMEOUT_S)  # if it fails, the broker will
            command = ["sh", "-c", WATCHED, "sh", *java, "kafka.Kafka", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def _settings(self, listen: str, logs: Path) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
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

    def _answers(self) -> bool:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "reconnect.backoff.max.ms": 200, "log_level": 0})
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._running(after_s=0.05):
            with contextlib.suppress(KafkaException):
                cluster = admin.list_topics(timeout=1)
                leaders = {partition.leader for topic in cluster.topics.values() for partition in topic.partitions.values()}
                if cluster.brokers and leaders <= set(cluster.brokers):
                    return True
        return False

    def _running(self, after_s: float = 0) -> bool:
        """Whether the broker still runs after that time; its end is noticed at once."""
        try:
            return self._process is not None and self._process.wait(after_s) is None
        except subprocess.TimeoutExpired:
            return True

    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")


class _ContainerServer(KafkaServer):
    """The same broker in a container, which holds its data and is removed when the tests end."""

    def __init__(self) -> None:
        super().__init__(data_dir=Path("/tmp/kafka"))  # inside the container
        self._container: DockerContainer | None = None

    def stop(self) -> None:
        if self._container is not None and self._running():
            self._container.get_wrapped_container().stop(timeout=STOP_TIMEOUT_S)

    def kill(self) -> None:
        if self._container is not None and self._running():
            self._container.get_wrapped_container().kill()
            self._container.get_wrapped_container().wait(timeout=STOP_TIMEOUT_S)

    def _launch(self) -> None:
        from testcontainers.core.container import DockerContainer

        if self._container is not None:
            self._container.get_wrapped_container().start()
            return
        settings = self._settings("0.0.0.0", self.data_dir)
        variables = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}
        container = DockerContainer(f"apache/kafka:{KAFKA_VERSION}").with_envs(**variables, KAFKA_HEAP_OPTS="-Xmx400m")
        self._container = container.with_bind_ports(self.port, self.port)
        atexit.register(self._container.stop)  # removes it; if the tests are killed, testcontainers' reaper does
        self._container.start()

    def _running(self, after_s: float = 0) -> bool:
        if self._container is None:
            return False
        self._container.reload()
        return self._container.status == "running"

    def _log(self) -> str:
        return b"".join(self._container.get_logs()).decode(errors="replace") if self._container is not None else ""


def why_not_java() -> str | None:
    needed = ["java"] if JARS.exists() else ["java", "mvn"]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}"
    version = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=START_TIMEOUT_S).stderr
    found = re.search(r'version "(\d+)', version)
    return None if found and int(found[1]) >= OLDEST_JAVA else f"Java {OLDEST_JAVA} is needed, not {version.splitlines()[:1]}"


def why_not_docker() -> str | None:
    try:
        from testcontainers.core.docker_client import DockerClient

        DockerClient().client.ping()
    except Exception as error:  # not installed, no daemon, not allowed: each has its own class
        return f"Docker does not answer ({error})".replace("\n", " ")
    return None


def _free_port(choice: range) -> int:
    """A free port below the ephemeral ones: there, a client that retries while the broker is down can connect to itself and keep
    the port. At random, and not by the seed of the tests, so that parallel workers choose apart."""
    for port in SystemRandom().sample(choice, 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port among 100 of {choice}")
