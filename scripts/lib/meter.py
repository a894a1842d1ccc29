"""What purchases cost the service and everything behind it, between two moments of a run under load.

Counts are those of the service, of MariaDB and of the kernel, read at both moments in the same order, so
what begins before the first or ends after the second is counted once too often as often as once too little.
Standard library only.
"""

import dataclasses
import pathlib
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure  # noqa: E402

# What an answer of 201 counts as, by the service's own metrics.
RESERVED = ("boxoffice_reservations_total", '"created"')
PAID = ("boxoffice_payments_total", '"completed"')
STATEMENTS, COMMITS = "Questions", "Com_commit"
BATCHES = "boxoffice_store_batch_commands"


@dataclasses.dataclass
class Reading:
    """The counters at one moment."""
    at: float
    reserved: float
    paid: float
    other: float
    batches: float
    commands: float
    statements: int
    commits: int
    # CPU seconds of processes by name, and of CPUs by number.
    processes: dict
    cpus: dict


def read(server, engines, extra, cpus):
    """A reading of a service, of the engines of its cluster (None for an embedded one), of `extra` processes, name
    to pid, and of these CPUs."""
    asked = engines.database.run(f"SHOW GLOBAL STATUS WHERE Variable_name IN ('{STATEMENTS}', '{COMMITS}')") if engines else ""
    if asked is None:
        raise Failure("MariaDB does not tell its status")
    status = dict(line.split() for line in asked.splitlines())
    code, text, _ = server.request("GET", "/metrics")
    if code != 200:
        raise Failure(f"/metrics of {server.label}: {code}")
    pids = {"server": server.pid, **extra}
    if engines:
        pids |= {"MariaDB": engines.database.child.pid, "Redis": engines.redis.child.pid, "Kafka": engines.kafka.pid}
    reserved, paid = counted(text, *RESERVED), counted(text, *PAID)
    return Reading(
        at=time.monotonic(), reserved=reserved, paid=paid,
        other=counted(text, RESERVED[0]) + counted(text, PAID[0]) - reserved - paid,
        batches=counted(text, BATCHES + "_count"), commands=counted(text, BATCHES + "_sum"),
        statements=int(status.get(STATEMENTS, 0)), commits=int(status.get(COMMITS, 0)),
        processes={name: harness.cpu_seconds(pid) for name, pid in pids.items()},
        cpus={cpu: busy_seconds(cpu) for cpu in cpus})


def counted(text, name, label=""):
    # A counter that nothing was counted in yet may be left out.
    return harness.metric_of(text, name, label) or 0


def busy_seconds(cpu):
    """For how long this CPU has done anything for anybody."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / harness.TICKS_PER_SECOND
    raise Failure(f"/proc/stat has no CPU {cpu}")


class Span:
    """What happened between two readings."""

    def __init__(self, before, after):
        self.seconds = after.at - before.at
        self.reserved, self.paid = int(after.reserved - before.reserved), int(after.paid - before.paid)
        self.other = int(after.other - before.other)
        self.operations = self.reserved + self.paid
        self.statements, self.commits = after.statements - before.statements, after.commits - before.commits
        batches = after.batches - before.batches
        self.commands_per_batch = (after.commands - before.commands) / batches if batches else float("nan")
        self.cpu_seconds = {name: after.processes[name] - then for name, then in before.processes.items()}
        self.busy = {cpu: (after.cpus[cpu] - then) / self.seconds for cpu, then in before.cpus.items()}

    def micros(self, process):
        """CPU time of a process for each operation, in microseconds."""
        return self.cpu_seconds[process] / self.operations * 1e6 if self.operations else float("nan")

    def each(self, count):
        return count / self.operations if self.operations else float("nan")
