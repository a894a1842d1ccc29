#!/usr/bin/env python3
"""Several instances of the service behind haproxy, on a MariaDB, a Redis and a Kafka of their own.

A cluster looks like a `harness.Server` to whoever runs loads against it. Standard library only.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
import kafka  # noqa: E402
from harness import Failure  # noqa: E402

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
# Clients at a time. The open files of one process are often limited to 20,000, and connections are two
# thirds of them only because those towards the instances are few: they are shared (`http-reuse`) and no
# more than these for each instance. Requests beyond that wait in the proxy.
HAPROXY_CONNECTIONS = 12_000
HAPROXY_REQUESTS_PER_INSTANCE = 1_500
PAYMENT_EVENT = "concert.payment-completed"

HAPROXY = """\
global
    maxconn {connections}
    nbthread 1
    # It reckons with two files for each client, which are more than there are; it never uses them.
    no strict-limits
    # Else it closes connections to the instances as soon as a quarter of its files is used by clients, and
    # opens one for each request.
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
    # Longer than a client's pause: a POST that meets the end of its connection is lost to the client.
    timeout http-keep-alive 60s
    http-reuse always
    retries 2
    option redispatch
frontend front
    bind 127.0.0.1:{port} backlog 16384
    maxconn {connections}
    # Where none can sell, because the database that they share is away, the line goes on in their memory.
    use_backend instances if {{ nbsrv(instances) gt 0 }}
    default_backend line
backend instances
    balance roundrobin
    option httpchk GET /health/ready
    default-server check inter 500ms fall 2 rise 1 maxconn {requests}
{servers}
backend line
    balance roundrobin
    option httpchk GET /health/live
    default-server check inter 500ms fall 2 rise 1
{servers}
"""


def program(name, package):
    # Debian keeps servers in /usr/sbin, which the PATH of an ordinary user lacks.
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Failure(f"{name} is missing; install the package {package} (scripts/tools {name} does on Debian)")
    return path


class Engine:
    """A server process that is not ours."""

    def __init__(self, name, command, log_path, ready, cpus=None):
        self.name, self.command, self.log_path, self.ready, self.cpus = name, command, log_path, ready, cpus
        self.start()

    def start(self):
        """Starts it, also again after a stop or a kill, and waits until it serves."""
        with open(self.log_path, "ab") as log:
            self.child = harness.spawn(self.command, cpus=self.cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])
                raise Failure(f"{self.name} does not start:\n{tail}")
            time.sleep(0.02)

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                harness.kill(self.child)


def listens(port):
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


class MariaDb(Engine):
    def __init__(self, directory, *, cpus=None):
        directory.mkdir(parents=True)
        self.socket = directory / "socket"
        self.port = harness.free_port()
        self.client = program("mariadb", "mariadb-client")
        # Of its own: a MariaDB that starts removes the temporary tables that it finds, another one's too.
        temporary = directory / "tmp"
        temporary.mkdir()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        made = subprocess.run(
            [program("mariadb-install-db", "mariadb-server"), "--no-defaults", f"--user={user}",
             f"--datadir={directory / 'data'}", f"--tmpdir={temporary}", "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise Failure(f"mariadb-install-db failed:\n{made.stdout[-1500:]}{made.stderr[-1500:]}")
        super().__init__(
            "mariadbd",
            [program("mariadbd", "mariadb-server"), "--no-defaults", f"--user={user}",
             f"--datadir={directory / 'data'}", f"--tmpdir={temporary}", "--bind-address=127.0.0.1", f"--port={self.port}",
             f"--socket={self.socket}", f"--pid-file={directory / 'pid'}", "--skip-name-resolve",
             "--max-connections=500", "--innodb-buffer-pool-size=512M"],
            directory / "log", lambda: self.run("SELECT 1") is not None, cpus)
        self.run("CREATE DATABASE boxoffice CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")

    def run(self, sql):
        """What a statement answers, as text; None where it failed."""
        done = subprocess.run([self.client, "--no-defaults", "--user=root", f"--socket={self.socket}", "-N", "-e", sql],
                              capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None


class Redis(Engine):
    def __init__(self, directory, *, cpus=None):
        directory.mkdir(parents=True)
        self.port = harness.free_port()
        super().__init__(
            "redis-server",
            [program("redis-server", "redis-server"), "--port", self.port, "--bind", "127.0.0.1", "--dir", directory,
             "--save", "", "--appendonly", "no"],
            directory / "log", lambda: listens(self.port), cpus)
        self.client = program("redis-cli", "redis-tools")

    def settings(self):
        """How an instance finds it."""
        return {"queue.redis.nodes": f"127.0.0.1:{self.port}"}


class Cluster:
    """The instances, what they work on, and the proxy before them."""

    def __init__(self, work_dir, *, instances, port=None, cpus=None, settings=None, label="cluster"):
        self.label = label
        self.port = port or harness.free_port()
        harness.require_free_port(self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        work = pathlib.Path(work_dir) / label
        work.mkdir(parents=True)
        self.work = work
        self.exit_code = None
        self.database = MariaDb(work / "mariadb")
        self.redis = Redis(work / "redis")
        self.kafka = kafka.Kafka(work / "kafka")
        self.settings = {
            "store.kind": "mysql",
            "store.mysql.url": f"mysql://root@127.0.0.1:{self.database.port}/boxoffice",
            "queue.kind": "redis",
            **self.redis.settings(),
            "events.kind": "kafka",
            "events.kafka.brokers": self.kafka.address,
            # Most of these crowds are let in and do not buy.
            "queue.stock": "off",
            **(settings or {}),
        }
        self.cpus = cpus
        # Label to port, kept over restarts.
        self.slots = {f"{label}-{number}": harness.free_port() for number in range(1, instances + 1)}
        self.instances = []
        for name in list(self.slots)[:instances]:
            self.start_instance(name)
        self.program = self.instances[0].program
        self.log_path, self.data_dir = self.instances[0].log_path, self.instances[0].data_dir
        configuration = work / "haproxy.cfg"
        servers = "\n".join(f"    server {name} 127.0.0.1:{at}" for name, at in self.slots.items())
        text = HAPROXY.format(connections=HAPROXY_CONNECTIONS, requests=HAPROXY_REQUESTS_PER_INSTANCE,
                              port=self.port, servers=servers)
        configuration.write_text(text)
        self.proxy = Engine("haproxy", [program("haproxy", "haproxy"), "-db", "-f", configuration],
                            work / "haproxy.log", lambda: listens(self.port))
        self.child = self.instances[0].child

    def start_instance(self, name):
        """Starts the instance of this slot, also again after a stop or a kill."""
        self.instances = [one for one in self.instances if one.label != name]
        one = harness.Server(self.work, port=self.slots[name], cpus=self.cpus, settings=self.settings, label=name)
        self.instances.append(one)
        return one

    def issue_tokens(self, count, token_format="queue_token_{n}"):
        self.instances[0].issue_tokens(count, token_format)
        # The others hear of them within a tick or two.
        time.sleep(1)

    def alive(self):
        return all(one.alive() for one in self.instances)

    def log_tail(self):
        return "\n".join(f"{one.label}:\n{one.log_tail()}" for one in self.instances)

    def stop(self):
        """Stops the proxy and the instances; the engines stay for the audit. The worst exit code."""
        if self.exit_code is None:
            self.proxy.stop()
            codes = [one.stop() for one in self.instances]
            self.exit_code = next((code for code in codes if code != 0), 0)
        return self.exit_code

    def audit(self):
        """(clean, output) of the audit of the database, and of payments against their events in Kafka."""
        clean, output = self.instances[0].audit()
        events = self.work / "events.jsonl"
        code, said = self.instances[0].command(
            "consume", "--brokers", self.kafka.address, "--from-beginning", "--until-idle", "5", "--output", str(events))
        if code != 0:
            raise Failure(f"`boxoffice consume` failed with code {code}:\n{said[-2000:]}")
        subjects = []
        for line in events.read_text().splitlines():
            event = json.loads(line)
            if event["type"] == PAYMENT_EVENT:
                subjects.append(event["data"]["paymentId"])
        payments = int(self.database.run("SELECT COUNT(*) FROM boxoffice.payment") or -1)
        repeated = re.search(r"(\d+) repetitions dropped", said)
        exact = len(subjects) == len(set(subjects)) == payments and repeated is not None and repeated[1] == "0"
        waiting = int(self.database.run("SELECT COUNT(*) FROM boxoffice.outbox") or 0)
        output += (f"\nKafka: {len(subjects)} records for {payments} payments, "
                   f"{repeated[1] if repeated else '?'} repetitions of any event, {waiting} events still in the outbox")
        return clean and exact and waiting == 0, output

    def close(self):
        self.stop()
        for engine in (self.kafka, self.redis, self.database):
            if engine is not None:
                engine.stop()
