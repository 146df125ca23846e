"""Drives one paho-mqtt client from an asyncio loop, without a thread of its own.

paho offers its socket to a foreign event loop through `on_socket_*`, `loop_read`, `loop_write`
and `loop_misc` (paho-mqtt documentation, "External event loop"). Only `reconnect()` blocks, for
the name look-up and the TCP and TLS handshakes: it runs in a thread of a shared executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from concurrent.futures import Executor

from paho.mqtt.client import Client


class AsyncioSocket:
    """The socket of one paho client, served by the running loop.

    Sets the client's `on_socket_*` callbacks; all other callbacks stay the caller's, and run in
    the loop's thread. The host and port must have been given with `connect_async`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._write_is_scheduled = False
        self._waits_for_buffer = False
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_socket_register_write

    async def open(self, executor: Executor) -> None:
        """Connects the socket and queues CONNECT; the answer arrives as `on_connect`.

        Raises:
            OSError: the broker cannot be reached, or its certificate is not trusted.
        """
        await self._loop.run_in_executor(executor, self._client.reconnect)
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            msg = "the connection was closed while it was being opened"
            raise ConnectionAbortedError(msg)
        self._sock = sock
        # The callbacks of paho ran in the executor's thread until here and did nothing, so that
        # the loop never watches a socket that this thread is still setting up.
        self._loop.add_reader(sock.fileno(), self._read)
        self._schedule_write()

    def misc(self) -> None:
        """Keeps the session alive (PINGREQ) and notices a dead one; call about once a second."""
        if self._sock is not None:
            self._client.loop_misc()

    def abort(self) -> None:
        """Breaks the connection; paho then reports it with `on_disconnect`."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket at once and silently: no DISCONNECT, and no callback of paho's."""
        sock = self._forget()
        if sock is not None:
            sock.close()

    def _forget(self) -> socket.socket | None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._wait_for_buffer(sock, wait=False)
            self._loop.remove_reader(sock.fileno())
        return sock

    def _read(self) -> None:
        sock = self._sock
        self._client.loop_read()
        # A TLS record is decrypted whole: what is left of it is in the SSL object, where the
        # loop cannot see it.
        while isinstance(sock, ssl.SSLSocket) and sock is self._sock and sock.pending():
            self._client.loop_read()

    def _schedule_write(self) -> None:
        if not self._write_is_scheduled:
            self._write_is_scheduled = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_is_scheduled = False
        if self._sock is None:
            return
        self._client.loop_write()
        self._wait_for_buffer(self._sock, wait=self._client.want_write())

    def _wait_for_buffer(self, sock: socket.socket | None, *, wait: bool) -> None:
        """Watches for room in the socket's send buffer, only while it is full."""
        if sock is None or wait == self._waits_for_buffer:
            return
        self._waits_for_buffer = wait
        if wait:
            self._loop.add_writer(sock.fileno(), self._write)
        else:
            self._loop.remove_writer(sock.fileno())

    def _on_socket_register_write(self, _client: Client, _userdata: object, _sock: object) -> None:
        if self._sock is not None:
            self._schedule_write()

    def _on_socket_close(self, _client: Client, _userdata: object, _sock: object) -> None:
        self._forget()
