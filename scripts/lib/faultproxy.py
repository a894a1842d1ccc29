#!/usr/bin/env python3
"""A TCP proxy that fails on request: it stands between the service and one of its servers.

  scripts/lib/faultproxy.py --to HOST:PORT [--listen PORT]

It prints its port, then obeys lines on its standard input, and says `ok` to each:

  pass         what comes goes on (the beginning)
  blackhole    what comes is swallowed, both ways; connections stay and new ones are accepted. What was
               open meanwhile stays dead afterwards, and the server never hears that its client has gone,
               as behind a firewall that forgot the connection
  stall        what comes is kept and goes on later, in order, as where packets are sent again
  cut          connections are closed, new ones too
  slow MS      what the server answers comes so much later

It ends with its standard input.
"""

import argparse
import asyncio
import collections
import resource
import sys

CHUNK = 65536


class Proxy:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.mode, self.delay_s = "pass", 0.0
        self.changed = asyncio.Event()
        self.pairs = set()

    def set(self, mode, delay_s=0.0):
        if mode == "blackhole":
            for pair in self.pairs:
                pair.dead = True
        if mode == "cut":
            for pair in list(self.pairs):
                pair.close()
        self.mode, self.delay_s = mode, delay_s
        self.changed.set()
        self.changed = asyncio.Event()

    async def until_not(self, mode):
        while self.mode == mode:
            await self.changed.wait()

    async def accept(self, reader, writer):
        pair = Pair(self, writer)
        self.pairs.add(pair)
        try:
            await pair.run(reader)
        finally:
            # A dead connection is kept towards the server until this program ends.
            if not pair.dead:
                self.pairs.discard(pair)


class Pair:
    """One connection and its other half."""

    def __init__(self, proxy, client):
        self.proxy, self.client, self.server = proxy, client, None
        self.dead = proxy.mode == "blackhole"

    def close(self):
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()

    async def run(self, reader):
        if self.proxy.mode == "cut":
            self.close()
            return
        if self.dead:
            await swallow(reader)
            self.client.close()
            return
        await self.proxy.until_not("stall")
        try:
            answers, self.server = await asyncio.open_connection(self.proxy.host, self.proxy.port)
        except OSError:
            self.close()
            return
        await asyncio.gather(self.carry(reader, self.server, False), self.carry(answers, self.client, True))
        if not self.dead:
            self.close()

    async def carry(self, reader, writer, is_answer):
        waiting = collections.deque()
        arrived = asyncio.Event()
        feeder = asyncio.ensure_future(self.feed(reader, waiting, arrived))
        try:
            loop = asyncio.get_running_loop()
            while True:
                while not waiting:
                    arrived.clear()
                    await arrived.wait()
                at, chunk = waiting.popleft()
                await self.proxy.until_not("stall")
                if is_answer and self.proxy.delay_s:
                    await asyncio.sleep(max(0.0, at + self.proxy.delay_s - loop.time()))
                if self.dead:
                    if not chunk and not is_answer:
                        # The client has given up; only the server is not to hear of it.
                        self.client.close()
                    continue
                if not chunk:
                    writer.close()
                    return
                writer.write(chunk)
                await writer.drain()
        except OSError:
            self.close()
        finally:
            feeder.cancel()

    async def feed(self, reader, waiting, arrived):
        loop = asyncio.get_running_loop()
        chunk = None
        while chunk != b"":
            try:
                chunk = await reader.read(CHUNK)
            except OSError:
                chunk = b""
            waiting.append((loop.time(), chunk))
            arrived.set()


async def swallow(reader):
    """Until the client gives up: nobody answers, and nobody hangs up."""
    try:
        while await reader.read(CHUNK):
            pass
    except OSError:
        pass


async def serve(options):
    host, port = options.to.rsplit(":", 1)
    proxy = Proxy(host, int(port))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", options.listen)
    print(server.sockets[0].getsockname()[1], flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        words = line.decode().split()
        known = {"pass": 1, "blackhole": 1, "stall": 1, "cut": 1, "slow": 2}
        if not words or known.get(words[0]) != len(words):
            print(f"no: {line.decode().strip()}", flush=True)
            continue
        delay_s = float(words[1]) / 1000 if words[0] == "slow" else 0.0
        proxy.set("pass" if words[0] == "slow" else words[0], delay_s)
        print("ok", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/lib/faultproxy.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server behind it")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="its own port; 0 takes a free one")
    options = parser.parse_args()
    # Connections towards the server are kept for good.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(serve(options))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
