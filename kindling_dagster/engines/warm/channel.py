"""JSON messages over a Unix socket, both ends proving that they know the token.

Framing and the challenge are those of ``multiprocessing.connection`` (HMAC over a random challenge, both ways);
of its messages only bytes are used, never objects, which would be pickles.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message; a signal's payload is bounded far below."""
GREETING_SECONDS = 5.0
"""How long the other end may take to prove itself."""


class ChannelClosed(Exception):  # noqa: N818 - it ends a conversation, which is not always an error
    """The other end is gone, or says what is no message."""


class Channel:
    """One conversation. Sending and receiving may be done by two different threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message.

        Raises:
            ChannelClosed: The other end is gone.
        """
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except (OSError, EOFError) as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """The next message; waits for it.

        Raises:
            ChannelClosed: The other end is gone, or sent something else.
        """
        try:
            message = json.loads(self._connection.recv_bytes(LARGEST_MESSAGE))
        except (OSError, EOFError, ValueError) as error:
            raise ChannelClosed(str(error) or type(error).__name__) from error
        if not isinstance(message, dict):
            raise ChannelClosed("a message is an object")
        return message

    def waiting(self, seconds: float) -> bool:
        """Whether there is something to receive within so many seconds."""
        try:
            return self._connection.poll(seconds)
        except OSError:
            return True

    def close(self) -> None:
        """Hang up. Can be called twice."""
        with suppress(OSError):
            self._connection.close()


def greet(end: socket.socket, token: bytes, *, first: bool) -> Channel:
    """Make a channel of a fresh socket, once both ends have proved that they know the token.

    Args:
        end: The socket; closed where this fails.
        token: What both know.
        first: Ask first, then answer; the server does, the client does not.

    Raises:
        ChannelClosed: The other end does not know the token, talks nonsense or says nothing.
    """
    # The file descriptor blocks for so long at most while nobody is known.
    timeout = int(GREETING_SECONDS * 1000)
    end.settimeout(None)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout))
    connection = Connection(os.dup(end.fileno()))
    try:
        for ask in (first, not first):
            (deliver_challenge if ask else answer_challenge)(connection, token)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(0))
    except Exception as error:
        connection.close()
        raise ChannelClosed(f"{type(error).__name__}: {error}") from error
    finally:
        end.close()
    return Channel(connection)


def _timeval(milliseconds: int) -> bytes:
    return struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
