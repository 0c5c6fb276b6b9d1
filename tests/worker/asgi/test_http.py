"""The ASGI server as an app and a client see it: one real worker, real connections."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from support.daemon import eventually
from support.rawhttp import Answer, RawClient
from support.worker import Worker, running, settings

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with running(settings("asgi_apps:app", "asgi", HERE, loop=request.param, sendfile=True)) as started:
        yield started


def asked(client: RawClient, path: str, *headers: str) -> Any:
    return json.loads(client.get(path, *headers).body)


def answer_with(client: RawClient, **wanted: Any) -> Answer:
    return client.post("/headers", json.dumps(wanted).encode())


def wait_for_note(client: RawClient, wanted: str) -> None:
    eventually(lambda: wanted in asked(client, "/notes"), wanted)


# The scope


def test_the_content_of_a_pipelined_request_may_come_after_the_answer_before_it(client: RawClient) -> None:
    client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    assert client.answer().body == b"hello"
    client.send(b"abc")
    assert client.answer().body == b"abc"
    client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [client.answer().body for _ in range(2)] == [b"hello", b"hello"]


def test_the_scope_has_every_key_with_its_type(client: RawClient) -> None:
    scope = asked(client, "/scope?a=1&b=%20", "X-One: 1", "x-one: 2", "X-Under_score: no")
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/scope"
    assert scope["raw_path"] == {"bytes": "/scope"}
    assert scope["query_string"] == {"bytes": "a=1&b=%20"}
    assert scope["root_path"] == ""
    assert scope["headers"] == [
        [{"bytes": "host"}, {"bytes": "a.example"}],
        [{"bytes": "x-one"}, {"bytes": "1"}],
        [{"bytes": "x-one"}, {"bytes": "2"}],
    ]
    assert scope["client"] is None
    assert scope["server"] == ["a.example", 80]
    assert scope["state"] == {"started": "yes", "shared": []}


def test_the_scope_is_what_caddy_says_of_its_client(client: RawClient) -> None:
    scope = asked(
        client, "/scope", "X-Forwarded-For: 6.6.6.6, 2001:db8::1", "X-Forwarded-Proto: https", "X-Forwarded-Host: h"
    )
    assert scope["client"] == ["2001:db8::1", 0]
    assert scope["scheme"] == "https"
    assert scope["server"] == ["a.example", 443]


def test_nobody_else_is_believed(stranger: RawClient) -> None:
    scope = asked(stranger, "/scope", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")
    assert scope["client"] is None
    assert scope["scheme"] == "http"


def test_a_tcp_connection_has_addresses(worker: Worker) -> None:
    with RawClient(worker.connect_tcp(flags=0)) as client:
        scope = json.loads(client.ask(b"GET /scope HTTP/1.0\r\n\r\n").body)
        assert scope["client"] == list(client.sock.getsockname())
        assert scope["server"] == list(client.sock.getpeername())
        assert scope["http_version"] == "1.0"
        assert client.is_ended()
    worker.drop_duplicates()


def test_a_path_is_decoded_and_its_raw_form_kept(client: RawClient) -> None:
    scope = asked(client, "/%73cope?%41")
    assert scope["path"] == "/scope"
    assert scope["raw_path"] == {"bytes": "/%73cope"}
    assert scope["query_string"] == {"bytes": "%41"}


def test_each_request_has_a_context_of_its_own(client: RawClient) -> None:
    for size in (0, 0, 200_000, 0, 0):  # the app resumes reading of a large one, from within its own context
        assert client.post("/context", b"x" * size).body == b"imported, %d bytes" % size


def test_a_task_factory_that_an_app_sets_makes_the_tasks_of_requests_too(client: RawClient) -> None:
    assert [client.get("/task_factory").body for _ in range(2)] == [b"0", b"1"]


def test_a_pipelined_request_has_a_context_of_its_own(client: RawClient) -> None:
    client.send(b"GET /context HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    assert [client.answer().body for _ in range(3)] == [b"imported, 0 bytes"] * 3


def test_a_request_that_waited_for_its_clients_reading_has_a_context_of_its_own(client: RawClient) -> None:
    client.send(b"GET /context_and_large HTTP/1.1\r\nHost: a\r\n\r\nGET /context HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(client.answer().body) == 4 << 20
    assert client.answer().body == b"imported, 0 bytes"


# The request


def test_a_body_with_a_length_arrives_whole(client: RawClient) -> None:
    data = bytes(range(256)) * 2000
    assert client.post("/echo", data).body == data
    assert client.post("/echo", b"").body == b""


def test_a_chunked_body_arrives_whole(client: RawClient) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert client.ask(head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n").body == b"abcdefg"
    assert client.ask(head + b"0\r\n\r\n").body == b""


def test_a_body_reaches_the_app_as_it_arrives(client: RawClient) -> None:
    client.send(b"POST /stream_echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
    client.head()
    client.send(b"abc")
    assert client.exactly(8) == b"3\r\nabc\r\n"
    client.send(b"def")
    assert client.exactly(13) == b"3\r\ndef\r\n0\r\n\r\n"


def test_a_body_larger_than_any_buffer_is_counted_to_the_last_byte(client: RawClient) -> None:
    size = 30 << 20
    client.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    piece = b"x" * (1 << 20)
    for _ in range(30):
        client.send(piece)
    assert client.answer().body == str(size).encode()


def test_requests_sent_together_are_answered_in_order(client: RawClient) -> None:
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n1st"
        b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n2nd\r\n0\r\n\r\n" * 100
    )
    for _ in range(100):
        assert client.answer().body == b"1st"
        assert client.answer().body == b"hello"
        assert client.answer().body == b"2nd"


def test_a_second_request_waits_for_the_first(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    client.head()
    other.get("/open?events")
    other.get("/open?more")
    assert client.exactly(36) == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\nHTT"


def test_caddy_gets_no_100_continue(client: RawClient) -> None:
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.is_quiet()
    client.send(b"abc")
    assert client.answer().body == b"abc"


def test_others_get_100_continue_when_the_app_reads(stranger: RawClient) -> None:
    stranger.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert stranger.answer().status == 100
    stranger.send(b"abc")
    assert stranger.answer().body == b"abc"
    stranger.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
    assert stranger.answer().body == b"abc"


def test_an_app_that_refuses_without_reading_asks_for_nothing(stranger: RawClient) -> None:
    stranger.send(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    answer = stranger.answer()
    assert (answer.status, answer.header("connection")) == (413, "close")


def test_an_early_answer_is_followed_by_a_drain_and_the_next_request(client: RawClient) -> None:
    client.send(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
    assert client.answer().status == 413
    client.send(b"x" * 3_000_000)
    assert client.get("/hello").body == b"hello"


# The response


def test_a_response_in_pieces_without_a_length_is_chunked(client: RawClient) -> None:
    answer = client.get("/stream")
    assert answer.header("transfer-encoding") == "chunked"
    assert (answer.body, answer.whole) == (b"onetwo", True)
    assert client.get("/hello").body == b"hello"


def test_a_response_given_at_once_gets_its_length(client: RawClient) -> None:
    answer = client.get("/at_once")
    assert answer.header("content-length") == "9"
    assert answer.body == b"all of it"


def test_the_head_of_a_slow_stream_leaves_at_once(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    status, _, headers = client.head()
    assert (status, dict(headers)["content-type"]) == (200, "text/event-stream")
    assert client.is_quiet()
    other.get("/open?events")
    assert client.exactly(14) == b"9\r\ndata: 1\n\n\r\n"
    assert client.is_quiet()
    other.get("/open?more")
    assert client.exactly(19) == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


BURST = b"".join(b"%x\r\n%d,\r\n" % (len(b"%d," % number), number) for number in range(300))


def test_small_pieces_of_one_turn_have_left_when_the_app_waits(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /burst HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.head()[0] == 200
    assert client.exactly(len(BURST)) == BURST
    assert client.is_quiet()
    other.get("/open?burst")
    assert client.exactly(13) == b"3\r\nend\r\n0\r\n\r\n"


def test_small_pieces_before_an_exception_leave_before_the_cut(client: RawClient) -> None:
    client.send(b"GET /burst?raise HTTP/1.1\r\nHost: a\r\n\r\n")
    client.head()
    assert client.exactly(len(BURST)) == BURST
    assert client.is_ended()


def test_a_head_request_gets_the_head_alone(client: RawClient) -> None:
    for path in ("/hello", "/stream", "/at_once"):
        assert client.ask(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).status == 200
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_has_none(client: RawClient, status: int) -> None:
    answer = answer_with(client, status=status, body=["some", "thing"])
    assert (answer.status, answer.header("transfer-encoding")) == (status, None)
    assert answer.header("content-length") is None
    assert client.get("/hello").body == b"hello"


def test_205_has_an_empty_content(client: RawClient) -> None:
    answer = answer_with(client, status=205, body=["some"])
    assert (answer.header("content-length"), answer.body) == ("0", b"")
    assert client.get("/hello").body == b"hello"


def test_204_loses_a_content_length_and_304_keeps_it(client: RawClient) -> None:
    assert answer_with(client, status=204, headers=[["content-length", "4"]]).header("content-length") is None
    assert answer_with(client, status=304, headers=[["content-length", "4"]]).header("content-length") == "4"


def test_http_1_0_ends_with_the_connection(client: RawClient) -> None:
    answer = client.ask(b"GET /stream HTTP/1.0\r\n\r\n")
    assert (answer.body, answer.header("transfer-encoding"), answer.header("connection")) == (b"onetwo", None, "close")
    assert client.is_ended()


def test_http_1_0_may_keep_its_connection(client: RawClient) -> None:
    for _ in range(2):
        answer = client.ask(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.body, answer.header("connection")) == (b"hello", "keep-alive")


def test_connection_close_is_kept_to(client: RawClient) -> None:
    answer = client.get("/hello", "Connection: close")
    assert answer.header("connection") == "close"
    assert client.is_ended()


def test_an_app_may_close_the_connection_but_not_frame_it(client: RawClient) -> None:
    answer = answer_with(client, headers=[["transfer-encoding", "gzip"], ["keep-alive", "timeout=5"]], body=["a", "b"])
    assert (answer.body, answer.header("transfer-encoding"), answer.header("keep-alive")) == (b"ab", "chunked", None)
    answer = answer_with(client, headers=[["Connection", "Close"]], body=["a"])
    assert answer.header("connection") == "close"
    assert client.is_ended()


def test_date_is_added_unless_the_app_has_one(client: RawClient) -> None:
    assert (client.get("/hello").header("date") or "").endswith(" GMT")
    answer = answer_with(client, headers=[["date", "yesterday"], ["server", "mine"]])
    assert (answer.header("date"), answer.header("server")) == ("yesterday", "mine")


def test_repeated_fields_and_unusual_statuses_pass(client: RawClient) -> None:
    answer = answer_with(client, status=599, headers=[["set-cookie", "a=1"], ["set-cookie", "b=\xe9"]])
    assert (answer.status, answer.reason) == (599, "")
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=\xe9"]


# What goes wrong


@pytest.mark.parametrize("path", ["/raise", "/raise_after_start", "/exit", "/cancel", "/nothing", "/missing", "/long"])
def test_an_app_that_fails_before_its_head_is_out_is_a_500(client: RawClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 500
    assert answer.header("caddysnake-code") in ("app-error", "no-response")
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize("path", ["/raise_midway", "/no_end", "/short", "/long_midway"])
def test_a_response_that_dies_midway_is_cut(client: RawClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.whole) == (200, False)
    assert client.is_ended()


def test_a_head_without_content_is_not_a_response(client: RawClient) -> None:
    assert client.get("/start_only").status == 500


def test_an_exception_after_the_response_changes_nothing(client: RawClient) -> None:
    assert client.get("/raise_at_end").body == b"done"
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize(
    "mistake",
    [
        "body_first",
        "start_twice",
        "unknown",
        "no_type",
        "no_status",
        "text_status",
        "status_99",
        "status_101",
        "status_1000",
        "text_body",
        "text_name",
        "text_value",
        "bad_name",
        "empty_name",
        "newline",
        "bare_newline",
        "nul",
        "two_lengths",
        "bad_length",
        "not_a_dict",
        "websocket",
    ],
)
def test_a_mistake_in_a_message_is_told_to_the_app_and_a_500_to_the_client(client: RawClient, mistake: str) -> None:
    answer = client.get(f"/mistake?{mistake}")
    assert (answer.status, answer.header("set-cookie")) == (500, None)
    notes = asked(client, "/notes")
    assert len(notes) == 1, notes


def test_what_is_sent_after_the_end_is_an_error_that_the_client_does_not_see(client: RawClient) -> None:
    assert client.get("/send_after_end").body == b"done"
    wait_for_note(client, "after end: content after the end of the response")


STEPS = ["start", "length", "empty", "trailers", "more", "end", "trailer", "hint", "file", "nonsense"]


@settings_of_hypothesis(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from([*STEPS, "receive", "sleep", "raise"]), max_size=7),
    line=st.sampled_from(["GET", "HEAD", "POST"]),
    is_1_0=st.booleans(),
)
def test_no_order_of_messages_leads_a_connection_off_the_rails(
    worker: Worker, steps: list[str], line: str, is_1_0: bool
) -> None:
    with RawClient(worker.connect()) as client:
        goes_on = script_is_answered(client, line, ",".join(steps), is_1_0)
        if goes_on:
            with contextlib.suppress(BrokenPipeError):
                client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        if not client.is_ended():  # as it is when the app left its response open behind a head without content
            assert goes_on
            assert client.answer().body == b"hello"
    worker.drop_duplicates()


def script_is_answered(client: RawClient, method: str, steps: str, is_1_0: bool) -> bool:
    """The answer is well formed, as far as it goes; whether the connection may go on."""
    head = f"{method} /script?{steps} HTTP/1.{0 if is_1_0 else 1}\r\nHost: a\r\n"
    client.send((head + ("Content-Length: 3\r\n\r\nxyz" if method == "POST" else "\r\n")).encode())
    answer = client.answer(head_only=method == "HEAD")
    while answer.status < 200:
        answer = client.answer(head_only=method == "HEAD")
    return not is_1_0 and answer.whole and answer.header("connection") != "close"


# Clients that leave


def test_an_app_that_waits_in_receive_is_told_that_the_client_left(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"GET /long_poll HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for_note(client, "polling")
    assert client.get("/polled").body == b"polled"
    assert asked(client, "/notes") == ["polling", "http.disconnect"]


def test_an_app_that_waits_for_a_body_is_told_that_the_client_left(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"POST /upload_wait HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    assert client.get("/uploaded").body == b"seen"
    assert asked(client, "/notes") == ["upload http.disconnect"]


def test_send_raises_an_oserror_when_the_client_left(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"GET /until_gone HTTP/1.1\r\nHost: a\r\n\r\n")
        leaving.head()
    assert client.get("/gone").body == b"gone"
    assert asked(client, "/notes") == ["ClientDisconnected is an OSError"]


def test_two_receives_at_once_are_both_answered(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"GET /two_receives HTTP/1.1\r\nHost: a\r\n\r\n")
        client.get("/hello")
    assert client.get("/two_received").body == b"seen"


def test_an_app_that_waits_in_receive_learns_that_its_response_is_complete(client: RawClient) -> None:
    """ASGI HTTP specification, "Disconnect": also after a response; the connection lives on."""
    assert client.get("/told_when_done").body == b"done"
    wait_for_note(client, "http.disconnect")


@pytest.mark.parametrize("path", ["/told_then_sends", "/told_then_sends?begun"])
def test_an_app_that_was_told_of_the_end_cannot_send_any_more(client: RawClient, worker: Worker, path: str) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wait_for_note(client, "OSError")
    assert asked(client, "/notes") == ["http.disconnect", "OSError"]


def test_a_client_that_ends_its_side_still_gets_its_answer(client: RawClient, other: RawClient) -> None:
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    other.get("/open?events")
    other.get("/open?more")
    answer = client.answer()
    assert (answer.body, answer.whole) == (b"data: 1\n\ndata: 2\n\n", True)
    assert client.is_ended()


# Background work and flow control


def test_work_after_a_response_does_not_hold_up_the_next_request(client: RawClient) -> None:
    assert client.post("/after", b"x").body == b"done"
    assert client.get("/hello").body == b"hello"
    assert "after" not in asked(client, "/notes")
    client.get("/open?after")
    wait_for_note(client, "after")


@pytest.mark.parametrize(
    ("method", "query"), [("HEAD", "200-"), ("HEAD", "200-all"), ("GET", "204-"), ("GET", "304-"), ("GET", "200-all")]
)
def test_an_app_that_does_not_say_that_it_is_done_does_not_hold_up_the_next_request(
    client: RawClient, method: str, query: str
) -> None:
    answer = client.ask(f"{method} /unfinished?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (answer.status, answer.body) == (int(query[:3]), b"all" if (method, query) == ("GET", "200-all") else b"")
    assert asked(client, "/notes") == []
    client.get("/open?unfinished")
    wait_for_note(client, "finished")
    assert asked(client, "/notes") == ["finished"]


def test_an_app_that_sends_without_end_to_who_asked_for_the_head_is_told(client: RawClient) -> None:
    assert client.ask(b"HEAD /unending HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    assert client.get("/hello").body == b"hello"
    wait_for_note(client, "told")


def test_an_app_waits_for_a_reader_that_does_not_read(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as slow:
        slow.send(b"GET /large?64 HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.head()
        sent = -1
        while (now := len(asked(client, "/notes"))) != sent:
            sent = now
            time.sleep(0.1)
        assert sent < 8
        total = 0
        while total < 64 << 20:
            line = slow._line()
            assert line is not None
            total += len(slow.exactly(int(line, 16)))
            slow.exactly(2)


def test_a_client_waits_for_an_app_that_does_not_read(client: RawClient, worker: Worker) -> None:
    before = int(client.get("/memory").body)
    with RawClient(worker.connect()) as pushing:
        pushing.send(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        pushing.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            pushing.send(b"x" * 99_000_000)
        assert int(client.get("/memory").body) < before + (8 << 20)
    client.get("/open?events")
    client.get("/open?more")


def test_requests_of_a_client_that_does_not_read_wait(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as slow:
        slow.send(b"GET /many HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        made = -1
        while (now := len(asked(client, "/notes"))) != made:
            made = now
            time.sleep(0.1)
        assert made < 10
        for _ in range(100):
            assert len(slow.answer().body) == 200_000


# Extensions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 20_000)
    return path


def test_files_by_their_path_are_offered_only_where_that_is_asked_for() -> None:
    with running(settings("asgi_apps:app", "asgi", HERE)) as plain, RawClient(plain.connect()) as client:
        assert set(asked(client, "/scope")["extensions"]) == {"http.response.trailers", "http.response.early_hint"}


def test_a_file_is_sent_by_its_path(client: RawClient, file: Path) -> None:
    for _ in range(2):
        answer = client.get(f"/pathsend?{file}")
        assert answer.header("content-length") == "5120000"
        assert answer.body == file.read_bytes()
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize("how", ["", "length:", "late:", "late,length:"])
def test_a_file_may_come_after_its_head(client: RawClient, file: Path, how: str) -> None:
    answer = client.get(f"/pathsend?{how}{file}")
    assert (answer.header("transfer-encoding") == "chunked") is (how == "late:")
    assert answer.body == file.read_bytes()
    assert client.get("/hello").body == b"hello"
    assert client.ask(f"GET /pathsend?{how}{file} HTTP/1.0\r\n\r\n".encode()).body == file.read_bytes()


def test_a_head_request_for_a_file_gets_its_length(client: RawClient, file: Path) -> None:
    answer = client.ask(f"HEAD /pathsend?{file} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert answer.header("content-length") == "5120000"
    assert client.get("/hello").body == b"hello"


def test_an_empty_file_is_an_empty_content(client: RawClient, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert client.get(f"/pathsend?{tmp_path}/empty").header("content-length") == "0"
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize("path", ["/nowhere", "/tmp", "/dev/null"])
def test_what_is_not_a_file_is_a_500(client: RawClient, path: str) -> None:
    assert client.get(f"/pathsend?{path}").status == 500
    assert client.get("/hello").body == b"hello"


def test_a_file_is_sent_to_a_slow_reader_and_others_are_served_meanwhile(
    client: RawClient, worker: Worker, file: Path
) -> None:
    with RawClient(worker.connect()) as slow:
        slow.send(f"GET /pathsend?{file} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        slow.head()
        assert client.get("/hello").body == b"hello"
        assert slow.exactly(5_120_000) == file.read_bytes()
        assert slow.get("/hello").body == b"hello"


def test_a_file_is_sent_over_tcp_as_well(worker: Worker, file: Path) -> None:
    with RawClient(worker.connect_tcp()) as client:
        client.send(f"GET /pathsend?{file} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        client.head()
        time.sleep(0.2)  # more than the kernel holds is waiting by now
        assert client.exactly(5_120_000) == file.read_bytes()
        assert client.get("/hello").body == b"hello"
    worker.drop_duplicates()


def test_a_client_that_leaves_in_the_middle_of_a_file(client: RawClient, worker: Worker, file: Path) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(f"GET /pathsend?{file} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        leaving.head()
    assert client.get("/hello").body == b"hello"


def test_early_hints_come_before_the_response(client: RawClient) -> None:
    client.send(b"GET /early_hint HTTP/1.1\r\nHost: a\r\n\r\n")
    hint = client.answer()
    assert hint.status == 103
    links = [value for name, value in hint.headers if name == "link"]
    assert links == ["</a.css>; rel=preload", "</b.js>; rel=preload"]
    assert client.answer().body == b"hinted"


def test_an_early_hint_may_come_after_the_start(client: RawClient) -> None:
    client.send(b"GET /script?start,hint,end HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.answer().status == 103
    assert client.answer().body == b"abc"
    assert client.get("/script?start,sleep,sleep,hint,end").body == b"abc"


def test_a_client_that_has_ended_its_side_gets_the_answer(stranger: RawClient, worker: Worker) -> None:
    for trusted in (True, False):
        with RawClient(worker.connect(**({} if trusted else {"flags": 0}))) as half:
            half.send(b"GET /script?receive,receive,start,end HTTP/1.1\r\nHost: a\r\n\r\n")
            half.sock.shutdown(socket.SHUT_WR)
            answer = half.answer()
            assert (answer.status, answer.body) == (200, b"abc")
            assert half.is_ended()


def test_a_client_that_ends_its_side_and_then_leaves_is_told_of(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as leaving:
        leaving.send(b"GET /long_poll HTTP/1.1\r\nHost: a\r\n\r\n")
        leaving.sock.shutdown(socket.SHUT_WR)
        wait_for_note(client, "polling")
    worker.drop_duplicates()
    assert client.get("/polled").body == b"polled"


def test_trailers_end_a_chunked_response(client: RawClient) -> None:
    client.send(b"GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
    _, _, headers = client.head()
    assert ("transfer-encoding", "chunked") in headers
    expected = b"7\r\ncontent\r\n0\r\nx-sum: 42\r\nx-more: y\r\n\r\n"
    assert client.exactly(len(expected)) == expected
    assert client.get("/hello").body == b"hello"


def test_trailers_are_dropped_where_they_have_no_place(client: RawClient) -> None:
    assert client.ask(b"HEAD /trailers HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    assert client.get("/hello").body == b"hello"


def test_a_trailer_that_frames_a_message_cuts_the_response(client: RawClient) -> None:
    assert not client.get("/bad_trailer").whole


def test_http_1_0_has_neither_trailers_nor_hints(client: RawClient) -> None:
    answer = client.ask(b"GET /scope HTTP/1.0\r\n\r\n")
    assert set(json.loads(answer.body)["extensions"]) == {"http.response.pathsend"}
