#!/usr/bin/env python3
"""Many HTTP clients at once, for checks of what happens at the same moment. Standard library only.

`at_once` sends a handful of requests in the same instant, each over a connection that is open before.
`steadily` lets a number of connections ask one request after another until it is told to stop.
`joins` lets processes of their own join a queue as fast as they can, and tells when each was asked for and
answered. Times are CLOCK_MONOTONIC, so those of different processes compare.
"""

import array
import base64
import dataclasses
import json
import pathlib
import select
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure  # noqa: E402

ANSWER_TIMEOUT_S = 30.0
TOKEN_MARK = b'"token":"'


@dataclasses.dataclass
class Answer:
    """One answer; status 0 where the connection broke."""
    status: int
    text: str
    asked_ns: int
    answered_ns: int

    def json(self):
        return json.loads(self.text)

    @property
    def code(self):
        """The error code of a refusal, None where there is none."""
        return self.json().get("code") if self.text.startswith("{") else None


def request(method, path, *, body=None, token=None, key=None, bearer=None):
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: application/json"]
    if token is not None:
        lines.append(f"QUEUE-TOKEN: {token}")
    if key is not None:
        lines.append(f"Idempotency-Key: {key}")
    if bearer is not None:
        lines.append(f"Authorization: Bearer {bearer}")
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines.append("Content-Type: application/json")
    if body is not None or method != "GET":
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def whole(data):
    """(status, body) of an answer that has arrived as a whole, else None. Ours say how long they are."""
    head, mark, body = data.partition(b"\r\n\r\n")
    if not mark:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if len(body) < length:
        return None
    return int(head[9:12]), body[:length]


def connect(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class Client:
    """A connection that is kept, for one request after another."""

    def __init__(self, port):
        self.port = port
        self.socket = connect(port)

    def send(self, data):
        asked = time.monotonic_ns()
        self.socket.sendall(data)
        received = b""
        while (got := whole(received)) is None:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise Failure(f"the instance at port {self.port} closed a connection before it answered")
            received += chunk
        return Answer(got[0], got[1].decode("utf-8", "replace"), asked, time.monotonic_ns())

    def close(self):
        self.socket.close()


def at_once(calls, *, moment=None):
    """Sends all `calls`, (port, bytes) each, in the same instant: every server has all of a request but its
    last byte before the first of these is sent. At a `moment`, a wall-clock time, requests are sent whole,
    because their time is when their head arrives."""
    held_back = 1 if moment is None else None
    sockets = []
    try:
        for port, data in calls:
            s = connect(port)
            sockets.append(s)
            if held_back:
                s.sendall(data[:-held_back])
        if moment is not None:
            time.sleep(max(0.0, moment - time.time()))
        asked = []
        for s, (_, data) in zip(sockets, calls):
            asked.append(time.monotonic_ns())
            s.sendall(data[-held_back:] if held_back else data)
        return collect(sockets, asked)
    finally:
        for s in sockets:
            s.close()


def collect(sockets, asked):
    answers = [None] * len(sockets)
    received = [b""] * len(sockets)
    index_of = {s.fileno(): index for index, s in enumerate(sockets)}
    poll = select.epoll()
    for s in sockets:
        poll.register(s, select.EPOLLIN)
    left = len(sockets)
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while left:
        events = poll.poll(max(0.0, deadline - time.monotonic()))
        if not events:
            raise Failure(f"{left} of {len(sockets)} requests had no answer within {ANSWER_TIMEOUT_S:.0f} s")
        for number, _ in events:
            index = index_of[number]
            chunk = sockets[index].recv(65536)
            received[index] += chunk
            got = whole(received[index])
            if got is None and not chunk:
                got = (0, b"")
            if got is not None:
                answers[index] = Answer(got[0], got[1].decode("utf-8", "replace"), asked[index], time.monotonic_ns())
                poll.unregister(sockets[index])
                left -= 1
    poll.close()
    return answers


# ---------------------------------------------------------------- one after another

def steadily(ports, requests, *, connections, stop):
    """Lets so many connections, spread over the ports, send what the iterator `requests` yields, each the next as
    soon as it is answered, until the event `stop` is set: all answers, in the order in which they came."""
    sockets, asked, pieces, answers = {}, {}, {}, []
    poll = select.epoll()
    try:
        for index in range(connections):
            s = connect(ports[index % len(ports)])
            sockets[s.fileno()] = s
            poll.register(s, select.EPOLLIN)
        for number, s in sockets.items():
            asked[number] = time.monotonic_ns()
            s.sendall(next(requests))
        while asked:
            events = poll.poll(ANSWER_TIMEOUT_S)
            if not events:
                raise Failure(f"{len(asked)} requests had no answer within {ANSWER_TIMEOUT_S:.0f} s")
            for number, _ in events:
                data = sockets[number].recv(65536)
                answered = time.monotonic_ns()
                if not data:
                    raise Failure("an instance closed a connection")
                pieces[number] = pieces.get(number, b"") + data
                got = whole(pieces[number])
                if got is None:
                    continue
                del pieces[number]
                answers.append(Answer(got[0], got[1].decode("utf-8", "replace"), asked.pop(number), answered))
                if not stop.is_set():
                    content = next(requests)
                    asked[number] = time.monotonic_ns()
                    sockets[number].sendall(content)
        return answers
    except StopIteration:
        raise Failure("there was nothing left to ask for") from None
    finally:
        poll.close()
        for s in sockets.values():
            s.close()


# ---------------------------------------------------------------- joins, as fast as they go

@dataclasses.dataclass
class Join:
    """A join that was answered: when, where, with which number."""
    asked_ns: int
    answered_ns: int
    instance: int
    seq: int
    token: str


def joins(work, ports, *, total, connections, processes, queue):
    """`total` joins over so many connections, spread over the ports: (joins, answers that were none)."""
    work = pathlib.Path(work)
    share = [total // processes + (index < total % processes) for index in range(processes)]
    children = []
    for index, count in enumerate(share):
        out = work / f"joins-{queue}-{index}"
        plan = {"ports": ports, "count": count, "connections": connections // processes, "queue": queue,
                "first": index, "out": str(out)}
        child = harness.spawn([sys.executable, __file__, json.dumps(plan)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
        children.append((child, out))
    for child, _ in children:
        if child.stdout.readline() != "ready\n":
            raise Failure("a client process did not start; its message is above")
    for child, _ in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    made, refused = [], {}
    for child, out in children:
        said, _ = child.communicate(timeout=600)
        if child.returncode != 0:
            raise Failure(f"a client process ended with code {child.returncode}")
        for status, count in json.loads(said).items():
            refused[int(status)] = refused.get(int(status), 0) + count
        numbers = array.array("q")
        numbers.frombytes((out.with_suffix(".times")).read_bytes())
        tokens = out.with_suffix(".tokens").read_text().split()
        for row, token in enumerate(tokens):
            asked, answered, instance = numbers[row * 3:row * 3 + 3]
            made.append(Join(asked, answered, instance, number_of(token), token))
    return made, refused


def number_of(token):
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["seq"]


def worker(plan):
    """One process of `joins`: each connection asks again as soon as it is answered."""
    sockets = {}
    for index in range(plan["connections"]):
        instance = (index + plan["first"]) % len(plan["ports"])
        s = connect(plan["ports"][instance])
        sockets[s.fileno()] = (s, instance)
    bodies = [request("POST", "/api/v1/waiting-queues", body={"userId": user, "queue": plan["queue"]})
              for user in range(1, 1001)]
    print("ready", flush=True)
    sys.stdin.readline()
    poll = select.epoll()
    asked, pieces, times, answers, refused = {}, {}, array.array("q"), [], {}
    left, sent, now = plan["count"], 0, time.monotonic_ns
    for number, (s, _) in sockets.items():
        poll.register(number, select.EPOLLIN)
        if sent < plan["count"]:
            asked[number] = now()
            s.sendall(bodies[sent % 1000])
            sent += 1
    deadline = time.monotonic() + 300
    while left:
        events = poll.poll(10)
        if not events or time.monotonic() > deadline:
            raise Failure(f"{left} joins were not answered")
        for number, _ in events:
            s, instance = sockets[number]
            data = pieces.pop(number, b"") + s.recv(4096)
            answered = now()
            if not data:
                raise Failure("an instance closed a connection")
            got = whole(data)
            if got is None:
                pieces[number] = data
                continue
            if got[0] == 201:
                times.extend((asked[number], answered, instance))
                answers.append(got[1])
            else:
                refused[got[0]] = refused.get(got[0], 0) + 1
            left -= 1
            if sent < plan["count"]:
                asked[number] = now()
                s.sendall(bodies[sent % 1000])
                sent += 1
    out = pathlib.Path(plan["out"])
    out.with_suffix(".times").write_bytes(times.tobytes())
    tokens = []
    for body in answers:
        begin = body.index(TOKEN_MARK) + len(TOKEN_MARK)
        tokens.append(body[begin:body.index(b'"', begin)].decode())
    out.with_suffix(".tokens").write_text("\n".join(tokens))
    print(json.dumps(refused), flush=True)
    return 0


if __name__ == "__main__":
    harness.run_main(lambda: worker(json.loads(sys.argv[1])))
