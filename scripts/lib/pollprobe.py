#!/usr/bin/env python3
"""Polls at one instance with one connection, and notes how long each took: a light process of its own,
so that what else the load does is not in the figures.

  scripts/lib/pollprobe.py --port PORT --tokens FILE [--per-second 50]

Prints a line for each poll: when it was sent (monotonic seconds), milliseconds, status (0 for none).
Ends when its standard input does.
"""

import argparse
import pathlib
import select
import socket
import sys
import time

TIMEOUT_S = 5.0


def ask(connection, request):
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError("closed")
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError("closed")
        body += chunk
    return int(head[9:12])


def main():
    parser = argparse.ArgumentParser(prog="scripts/lib/pollprobe.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=pathlib.Path, required=True)
    parser.add_argument("--per-second", type=float, default=50.0)
    options = parser.parse_args()
    tokens = options.tokens.read_text().split()
    requests = [f"GET /api/v1/waiting-queues HTTP/1.1\r\nHost: probe\r\nQUEUE-TOKEN: {token}\r\n\r\n".encode()
                for token in tokens]
    connection, index, due = None, 0, time.monotonic()
    while True:
        pause = due - time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, pause))[0] and not sys.stdin.buffer.read1(1):
            return
        due = max(due + 1 / options.per_second, time.monotonic() - 1)
        began = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", options.port), timeout=TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            status = ask(connection, requests[index % len(requests)])
        except (OSError, ValueError, StopIteration):
            status = 0
            if connection is not None:
                connection.close()
                connection = None
        print(f"{began:.6f} {(time.monotonic() - began) * 1000:.3f} {status}", flush=True)
        index += 1


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
