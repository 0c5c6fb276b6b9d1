"""What all workers of an app share: ``from caddysnake import cache, worker_id``.

The calls are those of the Go plugin's module of this name. Values are kept by a store (Valkey, or Redis) that the
environment names; each thread has a connection of its own. Calls that block wait on that connection; their twins for
asyncio (``aget`` and so on) run them in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
import threading
import time
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["Cache", "CacheConfigurationError", "CacheError", "cache", "worker_id"]

_URL = "CADDYSNAKE_STORE_URL"
_BELL = "CADDYSNAKE_STORE_BELL"
_TIMEOUT = "CADDYSNAKE_CACHE_TIMEOUT"
_TIMEOUT_S = 30.0
_START_S = 15.0
_AGAIN_S = 60.0
_BELL_S = 5.0
_KEY_MAX = 8192
_VALUE_MAX = 1024 * 1024
_MEMBERS_MAX = 100_000
_NAMES_MAX = 1000
_WAIT_MAX_S = 300.0
_IN_A_ROW = 8
_GAP_S = 20e-6
_UNREAD_MAX = 256
_OK = b"+OK\r\n"
_HINT = "write `cache` into the app's python block, or name a Valkey or Redis there: `cache redis://host:6379/0`"


class CacheError(RuntimeError):
    """The store cannot do it; the text says why."""


class CacheConfigurationError(CacheError):
    """There is no store; the text says what to write."""


class _Misuse(CacheError, ValueError):
    """An argument is none that there can be."""


def worker_id() -> int | None:
    """The number of this worker, from 0; a replacement has the same. None outside of workers."""
    text = os.environ.get("CADDYSNAKE_WORKER_ID", "")
    return int(text) if text.isdecimal() else None


# Where two commands must be one, a script runs in the store. Each begins with what there may be under the key already;
# of another kind than the call's it is "wrong type" in the plugin's words, which Redis says as WRONGTYPE.
_APPEND = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'string' then
  local first = redis.call('GET', KEYS[1])
  redis.call('DEL', KEYS[1])
  redis.call('RPUSH', KEYS[1], first)
elseif kind ~= 'list' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE wrong type')
end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  return redis.error_reply('ERR the list is full')
end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PERSIST', KEYS[1])
return 1
"""
# A list that was emptied is still one for the plugin, and none for Redis: what says so has a name of its own.
_EMPTIED = "caddysnake:emptied:"
_NOTE = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.pcall('SET', ARGV[1] .. KEYS[1], '', 'EX', 3600) end
"""
_POP = """
if redis.call('TYPE', KEYS[1]).ok ~= 'list' then return false end
local found = redis.call('LPOP', KEYS[1])
""" + _NOTE + """
return found
"""
_GET = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'string' then return redis.call('GET', KEYS[1]) end
if kind == 'list' then return redis.call('LRANGE', KEYS[1], 0, -1) end
if kind ~= 'none' then return redis.error_reply('WRONGTYPE wrong type') end
return redis.call('EXISTS', ARGV[1] .. KEYS[1]) == 1 and {}
"""
_SETNX = """
if redis.call('EXISTS', KEYS[1], ARGV[3] .. KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], unpack(tonumber(ARGV[2]) > 0 and {'EX', ARGV[2]} or {}))
return 1
"""
_SADD = """
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) and redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return redis.error_reply('ERR the set is full')
end
return redis.call('SADD', KEYS[1], ARGV[1])
"""


class _Refused(Exception):
    """The store's answer is an error."""


class _Link:
    """One connection, and its half of RESP2."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._sock.settimeout(timeout_s)
                self._sock.connect(unquote(parts.path))
            except BaseException:
                self._sock.close()
                raise
        else:
            self._sock = socket.create_connection((parts.hostname or "localhost", parts.port or 6379), timeout_s)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme in ("rediss", "valkeys"):
                import ssl

                context = ssl.create_default_context()
                self._sock = context.wrap_socket(self._sock, server_hostname=parts.hostname)
        self.unread = 0
        """Answers to sets that were not waited for."""
        self._row, self._last = 0, 0.0
        self._timeout_s = timeout_s
        self._buffer = b""
        self.wait(None)
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            self.call(_packed("AUTH", *user, unquote(parts.password)))
        database = parts.path.strip("/") if parts.scheme != "unix" else ""
        if database and database != "0":
            self.call(_packed("SELECT", database))
        self._await_data()

    def _await_data(self) -> None:
        """A store that has just been started reads what it kept."""
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                self.call(_packed("PING"))
                return
            except _Refused as exc:
                if not str(exc).startswith("LOADING"):
                    return  # who may not ask for that may still do the rest
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(0.02)

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:  # with the thread that it is of
        sock: socket.socket | None = getattr(self, "_sock", None)
        if sock is not None:
            sock.close()

    def wait(self, timeout_s: float | None) -> None:
        seconds = self._timeout_s if timeout_s is None else max(timeout_s, 0.001)
        if type(self._sock) is not socket.socket:  # TLS
            self._sock.settimeout(seconds)
            return
        # The kernel's own time-out: with Python's, each call is two.
        self._sock.setblocking(True)
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def call(self, message: bytes) -> Any:
        """Raises ``_Refused``, ``OSError``."""
        self.send(message)
        return self.read()

    def put(self, message: bytes) -> None:
        """Send a set; its answer is waited for, unless it is one of many, right behind each other: those are confirmed
        together. Raises as ``call`` does, also for those before.
        """
        self._row = self._row + 1 if time.perf_counter() - self._last < _GAP_S else 0
        self.send(message)
        self.unread += 1
        if self._row < _IN_A_ROW or self.unread >= _UNREAD_MAX:
            self.confirm()
        self._last = time.perf_counter()

    def confirm(self) -> None:
        """Read what was not waited for. Raises ``_Refused`` for the first that was refused."""
        refused = None
        while self.unread:
            if not self._buffer:
                self._more(4096)
            count = len(self._buffer) // len(_OK)
            if self._buffer == _OK * count:  # as most are
                self._buffer = b""
                self.unread -= count
                continue
            try:
                self.read()
            except _Refused as exc:
                refused = refused or exc
            self.unread -= 1
        if refused is not None:
            raise refused

    def send(self, message: bytes) -> None:
        try:
            self._sock.sendall(message)
        except BlockingIOError:
            raise TimeoutError from None

    def read(self) -> Any:
        if not self._buffer:
            self._more(4096)
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._exactly(size + 2)[:-2]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self.read() for _ in range(count)]
        if kind == b"-":
            raise _Refused(rest.decode("utf-8", "replace"))
        raise OSError(f"not an answer of a Valkey or Redis: {line[:60]!r}")

    def _line(self) -> bytes:
        while True:
            at = self._buffer.find(b"\r\n")
            if at >= 0:
                line, self._buffer = self._buffer[:at], self._buffer[at + 2 :]
                return line
            self._more(65536)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more(max(65536, size - len(self._buffer)))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self, size: int) -> None:
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            raise TimeoutError from None
        if not data:
            raise OSError("the store has ended the connection")
        self._buffer += data


class Cache:
    """What all workers of the app share. Keys and values are str or bytes, results are bytes."""

    _local = threading.local()
    _gave_up = float("-inf")

    # Values

    def set(self, key: str | bytes, value: str | bytes, ttl: int | None = None) -> None:
        """Keep ``value`` under ``key``, whatever was there; for ``ttl`` seconds, or for good.

        When it returns, the value is stored. Of many calls right behind each other, from the ninth on, up to 256 are
        confirmed together: what one of those was refused for is raised by a later call of the thread.
        """
        raw, data = _key(key), _value(value)
        if ttl is None or int(ttl) <= 0:
            message = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(raw), raw, len(data), data)
        else:
            message = _packed("SET", raw, data, "EX", int(ttl))
        try:
            self._command(message, is_set=True)
        except _Refused as exc:
            raise _failed(exc) from None

    def get(self, key: str | bytes) -> bytes | list[bytes] | None:
        """What is kept under ``key``; a list of what was appended; None when there is nothing."""
        # Most keys hold one value: only for others, or for none, a script looks.
        found: bytes | list[bytes] | None = None
        try:
            found = self._command(_packed("GET", _key(key)))
        except _Refused as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise _failed(exc) from None
        return self._script(_GET, _key(key), _EMPTIED) if found is None else found

    def delete(self, key: str | bytes) -> int:
        """Forget ``key``; 1 when there was something, else 0."""
        raw = _key(key)
        return min(int(self._call("DEL", raw, _EMPTIED.encode() + raw)), 1)

    def setnx(self, key: str | bytes, value: str | bytes, ttl: int | None = None) -> bool:
        """As ``set``, if there is nothing under ``key``; whether that was so."""
        return bool(self._script(_SETNX, _key(key), _value(value), int(ttl or 0), _EMPTIED))

    def keys(self, prefix: str | bytes = "", limit: int = _NAMES_MAX) -> list[bytes]:
        """The names that begin with ``prefix``, sorted, at most ``limit``."""
        raw = _key(prefix)
        if int(limit) < 0:
            raise _Misuse("keys: limit must be 0, for all that there can be, or more")
        most = min(int(limit) or _NAMES_MAX, _NAMES_MAX)
        pattern = b"".join(b"\\" + bytes((each,)) if each in b"*?[]\\^" else bytes((each,)) for each in raw) + b"*"
        found: set[bytes] = set()
        cursor: bytes = b"0"
        while True:
            cursor, names = self._call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            found.update(names)
            if cursor == b"0":
                return sorted(found)[:most]

    # Lists

    def append(self, key: str | bytes, value: str | bytes) -> None:
        """Add ``value`` to the list under ``key``; one value that is there becomes its first."""
        self._script(_APPEND, _key(key), _value(value), _MEMBERS_MAX)

    def pop(self, key: str | bytes, timeout: float | None = None) -> bytes | None:
        """Take the first off the list under ``key``; wait up to ``timeout`` seconds until there is one."""
        wait_s = 0.0 if timeout is None else float(timeout)
        if not 0 <= wait_s <= _WAIT_MAX_S:
            raise _Misuse(f"pop: timeout must be from 0 to {_WAIT_MAX_S:g} seconds")
        found: bytes | None = self._script(_POP, _key(key), _EMPTIED)
        if found is not None or not wait_s:
            return found
        try:
            answer = self._command(_packed("BLPOP", _key(key), f"{wait_s:.3f}"), wait_s=wait_s)
        except _Refused as exc:
            if str(exc).startswith("WRONGTYPE"):
                return None
            raise _failed(exc) from None
        if answer is None:
            return None
        self._script(_NOTE, _key(key), _EMPTIED)
        return answer[1]  # type: ignore[no-any-return]

    # Sets

    def sadd(self, key: str | bytes, member: str | bytes) -> int:
        """Add ``member`` to the set under ``key``; 0 when it was in it already."""
        return int(self._script(_SADD, _key(key), _value(member), _MEMBERS_MAX))

    def srem(self, key: str | bytes, member: str | bytes) -> int:
        """Take ``member`` out of the set under ``key``; 0 when it was not in it."""
        return int(self._call("SREM", _key(key), _value(member)))

    def smembers(self, key: str | bytes) -> list[bytes]:
        """The members of the set under ``key``, sorted."""
        return sorted(self._call("SMEMBERS", _key(key)))

    # Messages

    def publish(self, channel: str | bytes, message: str | bytes) -> int:
        """Give ``message`` to all who wait in ``subscribe``; how many those are."""
        return int(self._call("PUBLISH", _key(channel), _value(message)))

    def subscribe(self, channel: str | bytes, timeout: float) -> bytes | None:
        """Wait up to ``timeout`` seconds for one message."""
        wait_s = float(timeout)
        if not 0 < wait_s <= _WAIT_MAX_S:
            raise _Misuse(f"subscribe: timeout must be more than 0 and up to {_WAIT_MAX_S:g} seconds")
        raw = _key(channel)
        deadline = time.monotonic() + wait_s
        link = self._connected()
        self._local.link = None  # a connection that subscribes is for nothing else
        try:
            link.send(_packed("SUBSCRIBE", raw))
            while (left_s := deadline - time.monotonic()) > 0:
                link.wait(left_s)
                answer = link.read()
                if answer and answer[0] == b"message":
                    return answer[2]  # type: ignore[no-any-return]
            return None
        except TimeoutError:
            return None
        except (_Refused, OSError) as exc:
            raise _failed(exc) from None
        finally:
            link.close()

    # The connection

    def _script(self, text: str, *words: str | bytes | int) -> Any:
        return self._call("EVAL", text, 1, *words)

    def _call(self, *words: str | bytes | int) -> Any:
        try:
            return self._command(_packed(*words))
        except _Refused as exc:
            raise _failed(exc) from None

    def _command(self, message: bytes, wait_s: float = 0.0, is_set: bool = False) -> Any:
        """Raises ``_Refused``, ``CacheError``."""
        kept: _Link | None = getattr(self._local, "link", None)
        link = kept or self._connected()
        try:
            if is_set:
                return link.put(message)
            if link.unread:
                link.confirm()
            if wait_s:
                link.wait(wait_s + _timeout_s())
            answer = link.call(message)
            if wait_s:
                link.wait(None)
            return answer
        except _Refused:
            raise
        except BaseException as exc:
            self._local.link = None
            link.close()
            if isinstance(exc, TimeoutError) or not isinstance(exc, OSError):
                raise _failed(exc) if isinstance(exc, OSError) else exc from None
            if kept is None or link.unread > is_set:
                raise _failed(exc) from None
        # The store was restarted since: what has been sent to the one before is lost with it.
        return self._command(message, wait_s, is_set)

    def _connected(self) -> _Link:
        """A connection of this thread, in this process. Raises ``CacheError``."""
        url = os.environ.get(_URL, "")
        if not url:
            url = _rung()
        began = time.monotonic()
        # Who has waited for it in vain does not wait again for a while.
        patience_s = _START_S if began - self._gave_up > _AGAIN_S else 0.0
        is_told = not os.environ.get(_BELL)
        while True:
            try:
                link = _Link(url, _timeout_s())
                break
            except _Refused as exc:
                raise _failed(exc) from None
            except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as exc:
                # It is being started, or started again; or the daemon says why it is not.
                if not is_told:
                    is_told, url = True, _rung()
                if time.monotonic() - began >= patience_s:
                    self._gave_up = began if patience_s else self._gave_up
                    raise _failed(exc) from None
                time.sleep(0.02)
            except (OSError, ValueError) as exc:
                raise _failed(exc) from None
        self._local.link = link
        return link


def _twin(name: str) -> Any:
    """``name`` of ``Cache`` for asyncio: in a thread."""
    call = getattr(Cache, name)

    @functools.wraps(call)
    async def twin(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(call, *args, **kwargs)

    twin.__name__ = f"a{name}"
    twin.__qualname__ = f"Cache.a{name}"
    return twin


for _name in "set get delete append pop sadd srem smembers setnx keys publish subscribe".split():  # noqa: SIM905
    setattr(Cache, f"a{_name}", _twin(_name))


def _rung() -> str:
    """Ask the daemon for a store, and wait until it is there: its address. Raises ``CacheError``."""
    name, _, app = os.environ.get(_BELL, "").partition("#")
    if not name:
        raise CacheConfigurationError(f"there is no store: {_HINT}")
    began = time.monotonic()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bell:
            bell.settimeout(_START_S * 2)
            while True:
                try:
                    bell.connect("\0" + name)
                    break
                except ConnectionRefusedError:  # a daemon that has begun a moment ago
                    if time.monotonic() - began > _BELL_S:
                        raise
                    time.sleep(0.05)
            _, uid, _ = struct.unpack("3i", bell.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                raise CacheError("who answers for a store is not the daemon")
            bell.sendall(app.encode() + b"\n")
            answer = b""
            while data := bell.recv(4096):
                answer += data
    except OSError as exc:
        raise CacheError(f"the daemon does not answer for a store ({exc}): {_HINT}") from None
    text = answer.decode("utf-8", "replace").strip()
    if not text.startswith("unix://"):
        raise CacheConfigurationError(text or f"there is no store: {_HINT}")
    os.environ[_URL] = text
    return text


def _packed(*words: str | bytes | int) -> bytes:
    out = b"*%d\r\n" % len(words)
    for word in words:
        raw = word if type(word) is bytes else str(word).encode()
        out += b"$%d\r\n%b\r\n" % (len(raw), raw)
    return out


def _timeout_s() -> float:
    try:
        return float(os.environ.get(_TIMEOUT, "")) or _TIMEOUT_S
    except ValueError:
        return _TIMEOUT_S


def _key(key: str | bytes) -> bytes:
    raw = key.encode() if type(key) is str else _raw(key)
    if not 1 <= len(raw) <= _KEY_MAX:
        raise _Misuse(f"a key has 1 to {_KEY_MAX} bytes, not {len(raw)}")
    return raw


def _value(value: str | bytes) -> bytes:
    raw = value if type(value) is bytes else _raw(value)
    if len(raw) > _VALUE_MAX:
        raise _Misuse(f"a value has at most {_VALUE_MAX} bytes, not {len(raw)}")
    return raw


def _raw(value: str | bytes) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return str(value).encode()


def _failed(exc: BaseException) -> CacheError:
    """What went wrong, in a sentence."""
    text = str(exc)
    if isinstance(exc, _Refused):
        if text.startswith("WRONGTYPE"):
            return CacheError("wrong type")
        if "OOM" in text:  # older ones say in front of it that it came from a script
            return CacheError("the store is full: raise `max_size` of `cache`, or give values a time to live")
        return CacheError(text.removeprefix("ERR "))
    if isinstance(exc, TimeoutError):
        return CacheError(f"the store did not answer within {_timeout_s():g} s ({_TIMEOUT} sets another time)")
    return CacheError(f"the store cannot be reached: {text}")


cache: Cache = Cache()
# A connection belongs to one process: who is forked begins anew.
os.register_at_fork(after_in_child=lambda: setattr(Cache, "_local", threading.local()))
