"""WebSockets by the library `websockets`: `sockets.py URL ADDRESS PORT [CA]` prints what went wrong."""

import asyncio
import json
import ssl
import sys
import urllib.parse

import websockets


async def checks(url, address, port, ca=None):
    to = {"host": address, "port": int(port), "open_timeout": 20}
    if ca:
        name = urllib.parse.urlsplit(url).hostname
        to |= {"ssl": ssl.create_default_context(cafile=ca), "server_hostname": name}
    connect = lambda: websockets.connect(url, **to)
    async with connect() as socket:
        await socket.send("hello")
        answer = json.loads(await socket.recv())
        yield "text", answer["said"] == "hello"
        yield "path", answer["path"] == "/chat?room=1"
        blob = bytes(range(256)) * 256
        await socket.send(blob)
        yield "64 KiB", await socket.recv() == blob
        await socket.send(["in ", "three ", "parts"])
        yield "parts", json.loads(await socket.recv())["said"] == "in three parts"
        await asyncio.wait_for(await socket.ping(), 20)
        yield "ping", True
        for index in range(200):
            await socket.send(str(index))
        heard = [json.loads(await socket.recv())["said"] for _ in range(200)]
        yield "200 at once", heard == [str(index) for index in range(200)]
        await socket.close(1000)
        yield "end", socket.close_code == 1000
    async with connect() as socket:
        await socket.send(b"x" * (64 * 1024 + 1))
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            yield "the server's end reaches the client", closed.code == 1009


async def run():
    count = 0
    async for name, holds in checks(*sys.argv[1:]):
        count += 1
        if not holds:
            sys.exit("wrong: " + name)
    print(count, "checks hold")


asyncio.run(run())
