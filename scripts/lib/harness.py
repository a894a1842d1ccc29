"""What Python scripts of the tests share: starting, measuring and stopping servers.

Standard library only. Everything started here is stopped by its own pid, whatever way the program
ends; every directory made here is removed unless the caller keeps it.
"""

import atexit
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
# For servers that are not ours, to start and to stop.
ENGINE_TIMEOUT_S = 30.0


class Failure(Exception):
    """Something that the user can act on; printed without a traceback."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_main(main):
    """Runs `main`, turning signals and failures into an orderly end."""

    def on_signal(number, _frame):
        # A second signal must not interrupt the cleaning up that the first one started.
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, on_signal)
    program = pathlib.Path(sys.argv[0]).name
    try:
        code = main()
    except Failure as failure:
        say(f"{program}: {failure}")
        code = 1
    except BrokenPipeError:
        code = 1
    sys.exit(code)


# ---------------------------------------------------------------- directories, ports, limits

def make_temp_dir(prefix="boxoffice-"):
    path = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return pathlib.Path(path)


def free_port():
    """A free port that the kernel does not give to connections: a server that is down for a moment finds it again."""
    first_of_kernel = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, 30_000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port < first_of_kernel:
                with contextlib.suppress(OSError):
                    s.bind(("127.0.0.1", port))
                    return port
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def require_free_port(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failure(
                f"port {port} of 127.0.0.1 is not free ({error.strerror}). Stop what listens there "
                f"(`ss -ltnp 'sport = :{port}'` names it) or choose another with --port; scripts "
                "that are hard-wired to localhost:8080 need 8080."
            ) from None


def raise_file_limit(needed, why):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        raise Failure(
            f"{why} needs {needed} open files per process, but the limit is {soft} (hard limit "
            f"{hard}). Raise it as root with `ulimit -Hn {needed}` in the calling shell, or in "
            "/etc/security/limits.conf, or use fewer users."
        )


# ---------------------------------------------------------------- binaries and tools

def target_dir():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def binary(name):
    path = target_dir() / "release" / name
    if not path.is_file():
        raise Failure(f"{path} is missing; build it with `cargo build --release`")
    return path


def tool(name):
    """Path of an external tool, installed by scripts/tools where it is not there yet."""
    result = subprocess.run([ROOT / "scripts" / "tools", "--path", name],
                            stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise Failure(f"{name} is not available; scripts/tools says above what to do")
    return result.stdout.strip()


# ---------------------------------------------------------------- measuring a process

def memory_bytes(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise Failure(f"/proc/{pid}/status has no {field}")


# ---------------------------------------------------------------- child processes

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _before_exec(cpus):
    parent = os.getpid()

    def prepare():
        # Even a SIGKILL of this program leaves no child behind.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The kernel tells of no death from before it was asked.
        if os.getppid() != parent:
            os._exit(1)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_DFL)
    return prepare


def spawn(command, *, cpus=None, **options):
    """Starts a process of its own group, on the given CPUs, that dies with this program."""
    child = subprocess.Popen([str(part) for part in command], start_new_session=True,
                             preexec_fn=_before_exec(cpus), **options)
    atexit.register(kill, child)
    return child


def kill(child):
    """Ends a child and whatever it has started itself: it leads a group of its own."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


# ---------------------------------------------------------------- servers that are not ours

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
            self.child = spawn(self.command, cpus=self.cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + ENGINE_TIMEOUT_S
        while not self.ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])
                raise Failure(f"{self.name} does not start:\n{tail}")
            time.sleep(0.02)

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(ENGINE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                kill(self.child)


def listens(port):
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------- the service

def mint_people(work_dir, count, algorithm="RS256"):
    """Tokens of the people 1 to `count`, and the settings by which a server knows them: (file with a token in a
    line, settings)."""
    directory = pathlib.Path(work_dir) / "people"
    directory.mkdir(exist_ok=True)
    subprocess.run([tool("node"), ROOT / "scripts/lib/mint.mjs", directory, str(count), algorithm], check=True)
    settings = {"auth.mode": "jwt", "auth.issuer": "https://issuer.test", "auth.audience": "boxoffice",
                "auth.jwks_file": directory / "keys.json"}
    return directory / "people.txt", settings


class Server:
    """One running `boxoffice serve` with a data directory of its own. `build` is another build of the program than
    the one here."""

    def __init__(self, work_dir, *, port=None, cpus=None, settings=None, label="boxoffice", build=None,
                 until="/health/ready"):
        self.label = label
        self.program = build or binary("boxoffice")
        self.port = port or free_port()
        require_free_port(self.port)
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.data_dir = pathlib.Path(work_dir) / f"{self.label}-data"
        self.log_path = pathlib.Path(work_dir) / f"{self.label}.log"
        self.exit_code = None
        # Settings of the caller's shell must not leak into a measurement.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("BOXOFFICE_")}
        # This is how the commands (token, audit) find the running service and its data.
        self.env["BOXOFFICE_SERVER__LISTEN"] = self.address
        self.env["BOXOFFICE_DATA_DIR"] = str(self.data_dir)
        for key, value in (settings or {}).items():
            self.env["BOXOFFICE_" + key.upper().replace(".", "__")] = str(value)
        command = [self.program, "serve", "--listen", self.address, "--data-dir", self.data_dir]
        # A working directory of its own, so that no boxoffice.toml of the caller is read.
        self.cwd = pathlib.Path(work_dir)
        with open(self.log_path, "ab") as log:
            self.child = spawn(command, cpus=cpus, cwd=self.cwd, env=self.env,
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.child.pid
        self.until = until
        self._wait_until_ready()

    @classmethod
    def of_stage(cls, label, port, pid, data, log):
        """An instance that `lab stage` has started and stops."""
        one = cls.__new__(cls)
        one.label, one.port, one.pid = label, port, pid
        one.address = f"127.0.0.1:{port}"
        one.url = f"http://{one.address}"
        one.data_dir, one.log_path = pathlib.Path(data), pathlib.Path(log)
        return one

    def _wait_until_ready(self):
        deadline = time.monotonic() + READY_TIMEOUT_S
        answer = "no answer"
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failure(f"{self.label} ended with code {self.child.returncode} before it was "
                              f"ready:\n{self.log_tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, body, _ = self.request("GET", self.until, timeout_s=2)
                answer = f"{status} {body[:300]!r}"
                if status == 200:
                    return
            time.sleep(0.005)
        raise Failure(f"{self.label} was not ready on {self.url}{self.until} within {READY_TIMEOUT_S:.0f} s "
                      f"(last answer: {answer}):\n{self.log_tail()}")

    def log_tail(self, lines=15):
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join("    " + line for line in text.splitlines()[-lines:]) or "    (empty log)"

    def request(self, method, path, *, body=None, headers=None, timeout_s=30):
        """One request on a connection of its own: (status, text, headers in lower case)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            headers = dict(headers or {})
            if body is not None:
                body = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return response.status, text, {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def call(self, method, path, *, expect, body=None, headers=None, timeout_s=30):
        """One request whose status must be `expect` (or one of them); the decoded JSON answer."""
        status, text, _ = self.request(method, path, body=body, headers=headers, timeout_s=timeout_s)
        if status not in (expect if isinstance(expect, tuple) else (expect,)):
            raise Failure(f"{method} {path} on {self.label}: {status} instead of {expect}: {text[:500]}")
        return json.loads(text) if text else None

    # ---- operating it

    def admin_token(self):
        path = self.data_dir / "admin.token"
        try:
            return path.read_text().strip()
        except OSError as error:
            raise Failure(f"the server wrote no admin token to {path}: {error.strerror}") from None

    def admin(self, method, path, *, expect, body=None, timeout_s=120):
        return self.call(method, path, expect=expect, body=body, timeout_s=timeout_s,
                         headers={"Authorization": f"Bearer {self.admin_token()}"})

    def command(self, *arguments):
        """Runs a command of the binary against this server; (exit code, combined output)."""
        result = subprocess.run([str(self.program), *arguments], cwd=self.cwd, env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        return result.returncode, result.stdout

    def issue_tokens(self, count, token_format="queue_token_{n}"):
        code, output = self.command("token", "issue", "--count", str(count), "--format", token_format,
                                    "--activated", "--guessable")
        if code != 0:
            raise Failure(f"`boxoffice token issue` failed with code {code}:\n{output[-2000:]}")

    def audit(self):
        """(clean, output) of `boxoffice audit`, on the running service or on what it left."""
        code, output = self.command("audit")
        return code == 0, output.strip()

    def alive(self):
        return self.child.poll() is None

    def rss_bytes(self):
        return memory_bytes(self.pid, "VmRSS")

    def metric(self, name, label=""):
        """Sum of a metric over its labels, of those that contain `label`, or None where there is none."""
        status, text, _ = self.request("GET", "/metrics")
        return metric_of(text, name, label) if status == 200 else None

    def stop(self):
        """Asks it to end and waits; the exit code. Killed when it does not end in time."""
        if self.exit_code is None:
            if self.child.poll() is None:
                self.child.send_signal(signal.SIGTERM)
            try:
                self.exit_code = self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                kill(self.child)
                self.exit_code = -signal.SIGKILL
                say(f"{self.label} did not end within {STOP_TIMEOUT_S:.0f} s of SIGTERM and was killed")
        return self.exit_code


def metric_of(text, name, label=""):
    """Sum of a metric in the text of /metrics, of those labels that contain `label`; None where there is none."""
    values = []
    for line in text.splitlines():
        if line.startswith((name + " ", name + "{")):
            rest = line[len(name):]
            labels, rest = rest.rsplit("}", 1) if rest.startswith("{") else ("", rest)
            if label in labels:
                values.append(float(rest.split()[0]))
    return sum(values) if values else None


# ---------------------------------------------------------------- reporting

def machine():
    model = "unknown CPU"
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memoryBytes": total,
        "kernel": os.uname().release,
        "loadAverageBefore": os.getloadavg()[0],
    }


def table(rows, *, markdown=False, left=(0,)):
    """Rows of text as an aligned table; the first row is the head, the columns `left` are aligned
    left."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for index, row in enumerate(rows):
        cells = [str(cell).ljust(width) if i in left else str(cell).rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip())
        if index == 0:
            rule = ["-" * w if i in left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
            lines.append("| " + " | ".join(rule) + " |" if markdown
                         else "  ".join("-" * w for w in widths))
    return "\n".join(lines)
