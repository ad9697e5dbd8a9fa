"""
python-socketio's own client, as a program: connects, says something, hears it, and tells how that went.

Usage: socketio_client.py URL CA_FILE ORIGIN TRANSPORTS... (each polling, websocket, or both with a comma: one visit each). A process
of its own, because the client's threads wait half a minute for the last poll when it disconnects.
"""

import json
import os
import sys

import socketio
from requests import Session

SECONDS = 20


def main(url: str, authority: str, origin: str, *visits: str) -> None:
    """Print each visitor's number and the transport that it has in the end, as JSON."""
    print(json.dumps([visit(url, authority, origin, transports.split(",")) for transports in visits]), flush=True)
    os._exit(0)


def visit(url: str, authority: str, origin: str, transports: list[str]) -> tuple[int, str]:
    """Connect, say something, hear it."""
    session = Session()
    session.verify = authority
    session.trust_env = False
    session.headers["Origin"] = origin
    # websocket-client writes an Origin of its own unless it is told one; two are refused.
    client = socketio.SimpleClient(http_session=session, websocket_extra_options={"origin": origin})
    client.connect(url, transports=transports, wait_timeout=SECONDS)
    name, welcome = client.receive(timeout=SECONDS)
    assert name == "welcome"
    client.emit("say", "hello")
    # the visitors before are still there, and say nothing
    assert client.receive(timeout=SECONDS) == ["said", {"visitor": welcome["visitor"], "says": "hello"}]
    return welcome["visitor"], client.transport


if __name__ == "__main__":
    main(*sys.argv[1:])
