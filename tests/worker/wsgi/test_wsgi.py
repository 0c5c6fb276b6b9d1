"""The WSGI server as an app sees it: PEP 3333, in a real worker on real connections."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import Worker, running, settings
from werkzeug.test import EnvironBuilder
from werkzeug.utils import send_file

from caddysnake.worker.wsgi.call.file_wrapper import FileWrapper

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running(settings("wsgi_apps:application", "wsgi", HERE, threads=4)) as started:
        yield started


def asked(client: RawClient, path: str, *headers: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(client.get(path, *headers).body)
    return found


def what_was_closed(client: RawClient) -> bytes:
    """close() runs behind the response, so it may still be to come when that has arrived."""
    deadline = time.monotonic() + 10
    while not (found := client.get("/was_closed").body) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


# The response


def test_a_list_of_one_gets_its_length(client: RawClient) -> None:
    answer = client.get("/closing")
    assert (answer.status, answer.reason, answer.body) == (200, "OK", b"closed")
    answer = client.get("/plain")
    assert answer.body == b"plain"
    assert answer.header("content-length") == "5"
    assert answer.header("date")


def test_a_list_of_several_gets_the_sum_of_their_lengths(client: RawClient) -> None:
    assert client.get("/lengthless").header("content-length") == "9"


def test_no_content_at_all_is_a_length_of_0(client: RawClient) -> None:
    answer = client.get("/empty")
    assert (answer.header("content-length"), answer.body) == ("0", b"")


def test_a_generator_without_a_length_is_chunked(client: RawClient) -> None:
    answer = client.get("/generator")
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.body == b"onetwo"


def test_the_head_and_the_first_chunk_leave_before_the_second_is_made(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n")
    client.head()
    assert client.exactly(14) == b"9\r\ndata: 1\n\n\r\n"
    assert client.is_quiet()
    other.get("/open_gate")
    assert client.exactly(14) == b"9\r\ndata: 2\n\n\r\n"


def test_a_generator_may_start_its_response_with_the_first_chunk(client: RawClient) -> None:
    assert client.get("/late_start").body == b"started with the first chunk"


def test_what_write_sends_comes_before_what_is_returned(client: RawClient) -> None:
    assert client.get("/writes").body == b"written twice, returned"


def test_content_may_be_of_a_subclass_of_bytes(client: RawClient) -> None:
    bodies = [client.get(f"/bytes-of-a-kind?{how}").body for how in ("listed", "iterated", "written")]
    assert bodies == [b"part ", b"part ", b"part part "]


def test_the_reason_phrase_is_the_apps(client: RawClient) -> None:
    answer = client.get("/status", "X-Status: 299 Rather Unusual")
    assert (answer.status, answer.reason) == (299, "Rather Unusual")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "205 Reset Content"])
def test_a_status_without_content_has_none_whatever_the_app_returns(client: RawClient, status: str) -> None:
    answer = client.get("/status", f"X-Status: {status}")
    assert (answer.status, answer.body) == (int(status[:3]), b"")
    assert client.get("/plain").body == b"plain"


@pytest.mark.parametrize("path", ["/plain", "/generator", "/writes", "/file?10", "/large?1"])
def test_a_head_request_gets_the_same_head_and_no_content(client: RawClient, path: str) -> None:
    answer = client.ask(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert answer.status == 200
    assert client.get("/plain").body == b"plain"


def test_http_1_0_without_a_length_ends_with_the_connection(client: RawClient) -> None:
    answer = client.ask(b"GET /generator HTTP/1.0\r\n\r\n")
    assert answer.body == b"onetwo"
    assert answer.header("connection") == "close"
    assert answer.header("transfer-encoding") is None
    assert client.is_ended()


def test_http_1_0_may_keep_the_connection(client: RawClient) -> None:
    for _ in range(2):
        answer = client.ask(b"GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.header("connection") == "keep-alive"
        assert answer.body == b"plain"


def test_an_app_may_end_the_connection(client: RawClient) -> None:
    answer = client.get("/closes_connection")
    assert (answer.header("connection"), answer.body) == ("close", b"bye")
    assert client.is_ended()


def test_framing_headers_of_the_apps_are_ours_to_decide(client: RawClient) -> None:
    answer = client.get("/hop_by_hop")
    assert answer.header("transfer-encoding") is None
    assert answer.header("connection") is None
    assert answer.header("keep-alive") is None
    assert answer.body == b"framed by the server"


# close()


def test_close_is_called_after_the_response(client: RawClient) -> None:
    client.get("/was_closed")
    client.get("/closing")
    assert what_was_closed(client) == b"closing"


def test_close_is_called_when_the_iterable_raises(client: RawClient, other: RawClient) -> None:
    other.get("/was_closed")
    assert not client.get("/closing_raises").whole
    assert client.is_ended()
    assert what_was_closed(other) == b"raising"


def test_a_slow_close_delays_neither_the_response_nor_the_next_request(client: RawClient) -> None:
    start = time.monotonic()
    assert client.get("/closing?8").body == b"closed"
    assert client.get("/plain").body == b"plain"
    assert time.monotonic() - start < 7.9


def test_a_response_complete_by_its_length_does_not_wait_for_the_generators_end(client: RawClient) -> None:
    start = time.monotonic()
    assert client.get("/after_last").body == b"done"
    assert client.get("/plain").body == b"plain"
    assert time.monotonic() - start < 10
    client.get("/open_gate")


def test_an_exception_in_close_does_not_spoil_the_response(client: RawClient) -> None:
    assert client.get("/close_raises").body == b"fine so far"
    assert client.get("/plain").body == b"plain"


def test_content_cannot_be_read_once_the_connection_has_gone_on(client: RawClient) -> None:
    client.get("/was_closed")
    big = bytes(3 << 20)
    assert client.post("/late_input", big).body == b"answered first"
    assert what_was_closed(client) == b"refused"


# What goes wrong


@pytest.mark.parametrize("path", ["/raises", "/raises_started", "/never_starts", "/text", "/short_list", "/long_list"])
def test_what_fails_before_anything_has_left_is_a_500(client: RawClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 500
    assert answer.header("x-lost") is None
    assert b"Error" in answer.body
    assert b"Traceback" not in answer.body
    assert client.get("/plain").body == b"plain"


def test_an_app_that_exits_costs_its_request_only(client: RawClient) -> None:
    assert client.get("/exits").status == 500
    assert client.get("/plain").body == b"plain"


def test_a_chunked_response_that_dies_midway_never_ends_as_if_whole(client: RawClient) -> None:
    answer = client.get("/raises_midway")
    assert (answer.status, answer.body, answer.whole) == (200, b"the first half", False)


def test_a_counted_response_that_ends_short_ends_the_connection(client: RawClient) -> None:
    answer = client.get("/short")
    assert (answer.body, answer.whole) == (b"short", False)


def test_content_beyond_the_declared_length_never_leaves(client: RawClient) -> None:
    assert client.get("/long_generator").body == b"just"
    assert client.get("/plain").body == b"plain"


def test_exc_info_replaces_a_response_that_has_not_left(client: RawClient) -> None:
    answer = client.get("/recovers")
    assert (answer.status, answer.reason, answer.body) == (503, "Sorry", b"recovered")
    assert answer.header("x-first") is None


def test_exc_info_is_raised_when_the_head_has_left(client: RawClient) -> None:
    answer = client.get("/too_late")
    assert (answer.status, answer.body, answer.whole) == (200, b"gone already", False)


def test_a_second_start_without_exc_info_is_the_apps_error(client: RawClient) -> None:
    assert client.get("/starts_twice").body.endswith(b" raised")


@pytest.mark.parametrize(
    "bad",
    [
        "X-Split=a\\r\\nX-Injected: 1",
        "X-Split=a\\nX-Injected: 1",
        "X-Nul=a\\0b",
        "X\\r\\nX-Injected=1",
        "X Space=1",
        "X-Colon:=1",
        "=no name",
        "X-Wide=\\u20ac",
        "Content-Length=-1",
        "Content-Length=five",
    ],
)
def test_a_header_that_would_bend_the_response_is_refused(client: RawClient, bad: str) -> None:
    answer = client.get("/bad_header", f"X-Bad: {bad}")
    assert answer.status == 500
    assert answer.header("x-injected") is None
    assert client.get("/plain").body == b"plain"


@pytest.mark.parametrize(
    "bad", ["200 OK\\r\\nX-Injected: 1", "abc", "20 OK", "99 Low", "101 Switching", "200OK", "200 \\u20ac"]
)
def test_a_status_that_is_none_is_refused(client: RawClient, bad: str) -> None:
    answer = client.get("/bad_status", f"X-Bad: {bad}")
    assert answer.status == 500
    assert answer.header("x-injected") is None


# wsgi.input


def test_content_is_read_as_from_a_file(client: RawClient) -> None:
    content = b"one\ntwo\nthree\nfour\nfive\nsix"
    answer = client.post("/read?read:2,readline,readline:2,readline,readlines:3,iter,read,readline", content)
    expected = ["on", "e\n", "tw", "o\n", ["three\n"], ["four\n", "five\n", "six"], "", ""]
    assert json.loads(answer.body) == expected


def test_content_that_arrives_while_it_is_read_reads_the_same(client: RawClient) -> None:
    content = b"one\ntwo\nthree\nfour\nfive\nsix"
    padded = content + b"\n" + bytes(2 << 20)
    head = "POST /read?read:2,readline,readline:2,readline,readlines:3,readline HTTP/1.1\r\nHost: a\r\n"
    client.send(head.encode() + f"Content-Length: {len(padded)}\r\n\r\n".encode())
    for at in range(0, len(padded), 65536):
        client.send(padded[at : at + 65536])
    assert json.loads(client.answer().body) == ["on", "e\n", "tw", "o\n", ["three\n"], "four\n"]


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_content_of_any_size_arrives_whole(client: RawClient, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert client.post("/echo", content).body == content
    assert client.get("/plain").body == b"plain"


@pytest.mark.parametrize("size", [0, 1, 1000, 3 << 20])
def test_chunked_content_arrives_decoded(client: RawClient, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, size, 100_000):
        piece = content[at : at + 100_000]
        client.send(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
    client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
    assert client.answer().body == content
    assert client.get("/plain").body == b"plain"


def test_an_app_is_called_while_its_content_is_still_missing(client: RawClient) -> None:
    client.send(b"POST /first_bytes HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfour")
    assert client.answer().body == b"four"
    client.send(b"and 6.")
    assert client.get("/plain").body == b"plain"


def test_a_conversation_over_one_request_is_possible(client: RawClient) -> None:
    client.send(b"POST /bounces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc\n\r\n")
    client.head()
    assert client.exactly(9) == b"4\r\nABC\n\r\n"
    client.send(b"4\r\ndef\n\r\n0\r\n\r\n")
    assert client.exactly(14) == b"4\r\nDEF\n\r\n0\r\n\r\n"


def test_an_early_answer_arrives_and_the_connection_goes_on_behind_the_unread_content(client: RawClient) -> None:
    content = bytes(3 << 20)
    client.send(f"POST /refuses HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n".encode())
    client.send(content)
    answer = client.answer()
    assert (answer.status, answer.body) == (413, b"too large for me")
    assert client.get("/plain").body == b"plain"


def test_a_client_that_leaves_midway_is_not_a_short_upload(worker: Worker, client: RawClient) -> None:
    with RawClient(worker.connect()) as leaver:
        leaver.send(b"POST /nested HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nhalf")
        time.sleep(0.4)
    assert client.get("/plain").body == b"plain"


# wsgi.file_wrapper


def test_a_file_is_sent_with_its_length(client: RawClient) -> None:
    answer = client.get("/file?100")
    assert answer.header("content-length") == "1000"
    assert answer.body == b"0123456789" * 100


def test_a_file_is_sent_from_where_it_stands(client: RawClient) -> None:
    assert client.get("/file?1", "X-Seek: 3").body == b"3456789"


def test_of_a_file_no_more_is_sent_than_was_declared(client: RawClient) -> None:
    assert client.get("/file?10", "X-Length: 12").body == b"012345678901"


def test_a_file_shorter_than_declared_is_a_500(client: RawClient) -> None:
    assert client.get("/file?1", "X-Length: 12").status == 500


def test_a_large_file_arrives_whole(client: RawClient) -> None:
    assert client.get("/file?2000000").body == b"0123456789" * 2_000_000


def test_a_file_over_tcp_arrives_whole_also_where_its_reader_is_slow(worker: Worker) -> None:
    with RawClient(worker.connect_tcp()) as client:
        assert client.get("/file?1", "X-Seek: 3").body == b"3456789"
        assert client.get("/file?10", "X-Length: 12").body == b"012345678901"
        client.send(b"GET /file?2000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        time.sleep(0.2)  # more than the kernel holds is waiting by now
        assert client.exactly(20_000_000) == b"0123456789" * 2_000_000
        assert client.get("/plain").status == 200
    worker.drop_duplicates()


def test_a_file_that_is_none_of_the_kernels_is_read(client: RawClient) -> None:
    answer = client.get("/memory_file")
    assert answer.body == b"from memory"
    assert client.get("/memory_file", "X-Length: 7").body == b"from me"
    assert client.get("/memory_file", "X-Length: 6").body == b"from m"
    assert client.get("/memory_file", "X-Length: 12").whole is False


def test_a_range_of_a_file_is_read_from_where_it_begins() -> None:
    class Watched(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    environ = EnvironBuilder(headers={"Range": "bytes=-10"}).get_environ()
    environ["wsgi.file_wrapper"] = FileWrapper
    file = Watched(b"0123456789" * 20_000)
    answer = send_file(file, environ, mimetype="video/mp4", conditional=True)
    assert (answer.status_code, b"".join(answer.iter_encoded())) == (206, b"0123456789")
    assert file.read_bytes == 10


# environ and the rest


def test_the_environ_is_complete(client: RawClient) -> None:
    found = asked(client, "/environ/a%20b%C3%A9?q=%20&q", "Cookie: a=1", "Cookie: b=2", "X-A: 1", "X-A: 2")
    assert found["REQUEST_METHOD"] == "GET"
    assert found["SCRIPT_NAME"] == ""
    assert found["PATH_INFO"] == "/environ/a bÃ©"
    assert found["QUERY_STRING"] == "q=%20&q"
    assert found["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("a.example", "80")
    assert found["HTTP_COOKIE"] == "a=1; b=2"
    assert found["HTTP_X_A"] == "1, 2"
    assert found["wsgi.version"] == [1, 0]
    assert found["wsgi.url_scheme"] == "http"
    assert found["wsgi.multithread"] is True
    assert found["wsgi.multiprocess"] is False
    assert found["wsgi.run_once"] is False
    assert "wsgi.input_terminated" not in found
    assert "CONTENT_LENGTH" not in found
    assert "CONTENT_TYPE" not in found


def test_early_hints_leave_before_the_response(client: RawClient) -> None:
    client.send(b"GET /hints HTTP/1.1\r\nHost: a\r\n\r\n")
    hints = client.answer()
    assert (hints.status, hints.header("link")) == (103, "</style.css>; rel=preload")
    assert client.answer().body == b"hinted"


def test_http_1_0_gets_no_early_hints(client: RawClient) -> None:
    client.send(b"GET /hints HTTP/1.0\r\n\r\n")
    assert client.rest().count(b"HTTP/1.1 ") == 1


def test_the_worker_has_no_event_loop_and_nothing_of_the_daemons(client: RawClient) -> None:
    modules = client.get("/modules").body.decode().split()
    assert not {"asyncio", "pydantic", "uvloop"} & set(modules)


def test_requests_run_side_by_side(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.05)
    assert other.get("/open_gate").body == b"open"
    assert client.answer().body == b"waited"


@pytest.mark.parametrize(
    "path", ["plain", "lengthless", "generator", "writes", "closing", "recovers", "was_closed", "environ"]
)
def test_wsgiref_finds_no_fault(path: str, validated: RawClient) -> None:
    answer = validated.get(f"/{path}", "X-Status: 200 OK")
    assert answer.whole
    assert answer.status in (200, 503)
    assert validated.post("/echo", b"posted").body == b"posted"
    assert validated.ask(b"HEAD /plain HTTP/1.1\r\nHost: a\r\n\r\n").status == 200


@pytest.fixture(scope="module")
def validated_worker() -> Iterator[Worker]:
    with running(settings("wsgi_apps:validated", "wsgi", HERE, threads=1)) as started:
        yield started


@pytest.fixture
def validated(validated_worker: Worker) -> Iterator[RawClient]:
    with RawClient(validated_worker.connect()) as client:
        yield client
    validated_worker.drop_duplicates()


# The log


def test_a_request_that_dies_is_logged_once_with_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        running(settings("wsgi_apps:application", "wsgi", HERE, threads=1)) as worker,
        RawClient(worker.connect()) as client,
    ):
        client.send(b"GET /generator HTTP/1.1\r\nHost: a\r\n\r\nGET /raises?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.answer()
        client.answer()
    log = capfd.readouterr().err
    assert log.count("Traceback") == 1
    assert "During handling" not in log
    assert log.count("ValueError: raised before the response") == 1
    assert "app=wsgi_apps:application method=GET path=/raises code=app-error\n" in log
    assert "caddysnake/worker" not in log
    assert "close()" not in log


def test_a_client_that_leaves_is_no_error_of_the_apps(capfd: pytest.CaptureFixture[str]) -> None:
    with running(settings("wsgi_apps:application", "wsgi", HERE, threads=2)) as worker:
        with RawClient(worker.connect()) as client:
            client.send(b"POST /nested HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nhalf")
            time.sleep(0.5)
        with RawClient(worker.connect()) as client:
            client.get("/plain")
            time.sleep(0.2)
    log = capfd.readouterr().err
    assert "Traceback" not in log


def test_a_file_that_becomes_shorter_while_it_is_sent_is_no_error_of_ours(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(20_000_000))
    with (
        running(settings("wsgi_apps:application", "wsgi", HERE, threads=1)) as worker,
        RawClient(worker.connect()) as client,
    ):
        client.send(f"GET /wrapped?{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        client.head()
        time.sleep(0.1)  # the thread has filled the socket, and left the rest to whoever is free
        path.write_bytes(b"")
        assert len(client.rest()) < 20_000_000
    log = capfd.readouterr().err
    assert "a file became shorter while it was sent: " in log
    assert "app=wsgi_apps:application code=app-error" in log
    assert "inside caddysnake" not in log


def test_what_the_app_writes_to_wsgi_errors_is_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        running(settings("wsgi_apps:application", "wsgi", HERE, threads=1)) as worker,
        RawClient(worker.connect()) as client,
    ):
        client.get("/complains")
    assert "a complaint\ntwo\nlines\n" in capfd.readouterr().err


def test_in_development_the_traceback_is_in_the_page_and_escaped() -> None:
    with (
        running(settings("wsgi_apps:application", "wsgi", HERE, threads=1, development=True)) as worker,
        RawClient(worker.connect()) as client,
    ):
        answer = client.get("/raises?<script>")
        assert answer.status == 500
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert b"ValueError: raised before the response" in answer.body
        assert b"<script>" not in answer.body


def test_a_file_wrapper_sends_what_reading_gives(client: RawClient) -> None:
    for name in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"):
        wanted = Path(name)
        if wanted.exists():
            assert client.get(f"/wrapped?{name}").body == wanted.read_bytes()


def test_a_stream_that_says_nothing_learns_that_its_client_has_left(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
        while client.get("/silence_of").body != b"begun":
            time.sleep(0.02)
    worker.drop_duplicates()
    eventually(lambda: client.get("/silence_of").body == b"closed")
