"""The vital-signs page: what the worker may do to it, and what the daemon believes of it."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Iterator

import pytest

from caddysnake.channel import vitals
from caddysnake.channel.vitals import SIZE, Page


@pytest.fixture
def fd() -> Iterator[int]:
    fd = vitals.create("test")
    yield fd
    os.close(fd)


@pytest.fixture
def sides(fd: int) -> Iterator[tuple[Page, Page]]:
    """The worker's mapping and the daemon's."""
    worker, daemon = Page(fd), Page(fd)
    yield worker, daemon
    worker.close()
    daemon.close()


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 10 * SIZE])
def test_its_size_cannot_be_changed(fd: int, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(fd, size)
    assert os.fstat(fd).st_size == SIZE


def test_its_seals_cannot_be_changed(fd: int) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_hole_punched_into_it_reads_as_zeros(fd: int, sides: tuple[Page, Page]) -> None:
    worker, daemon = sides
    worker.slots[5] = vitals.SLOT_IDLE
    worker.header[vitals.WORD_ACTIVE] = 3
    mapping = mmap.mmap(fd, SIZE)
    mapping.madvise(mmap.MADV_REMOVE)
    mapping.close()
    assert daemon.slots[5] == vitals.SLOT_CLOSED
    assert daemon.word(vitals.WORD_ACTIVE) == 0


def test_its_descriptor_is_close_on_exec(fd: int) -> None:
    assert not os.get_inheritable(fd)


def test_a_new_page_is_all_zero(fd: int) -> None:
    assert os.pread(fd, SIZE, 0) == b"\0" * SIZE


@pytest.mark.parametrize("size", [0, SIZE - mmap.PAGESIZE, SIZE + 1])
def test_a_page_of_the_wrong_size_is_refused(size: int) -> None:
    fd = os.memfd_create("wrong", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        with pytest.raises(ValueError, match="not a vital-signs page"):
            Page(fd)
    finally:
        os.close(fd)


def test_what_one_side_writes_the_other_reads(sides: tuple[Page, Page]) -> None:
    worker, daemon = sides
    worker.thread(3)[vitals.CELL_REQUESTS] = 12
    worker.thread(255)[vitals.CELL_REQUESTS] = 30
    worker.header[vitals.WORD_TICK] = 99
    daemon.slots[vitals.SLOTS - 1] = vitals.SLOT_GIVEN
    assert daemon.total(vitals.CELL_REQUESTS, vitals.THREADS) == 42
    assert daemon.total(vitals.CELL_REQUESTS, 4) == 12
    assert daemon.thread_word(3, vitals.CELL_REQUESTS) == 12
    assert daemon.word(vitals.WORD_TICK) == 99
    assert worker.slots[vitals.SLOTS - 1] == vitals.SLOT_GIVEN


def test_no_two_things_share_a_byte(sides: tuple[Page, Page]) -> None:
    worker, _ = sides
    for index in range(len(worker.header)):
        worker.header[index] = 2**64 - 1
    assert not any(any(worker.thread(index)) for index in range(vitals.THREADS))
    for index in range(vitals.THREADS):
        assert not any(worker.thread(index))
        for cell in range(len(worker.thread(index))):
            worker.thread(index)[cell] = 2**64 - 1
    assert not any(worker.slots)
    assert len(worker.slots) == vitals.SLOTS
    worker.slots[:] = b"\xff" * vitals.SLOTS


@pytest.mark.parametrize("index", [-1, vitals.THREADS, 10**9])
def test_a_thread_block_that_does_not_exist_is_an_error(sides: tuple[Page, Page], index: int) -> None:
    with pytest.raises(IndexError):
        sides[0].thread(index)


def test_wild_numbers_are_clamped(sides: tuple[Page, Page]) -> None:
    worker, daemon = sides
    for index in range(vitals.THREADS):
        worker.thread(index)[vitals.CELL_BYTES_OUT] = 2**64 - 1
    worker.header[vitals.WORD_ACTIVE] = 2**64 - 1
    limit = vitals.LARGEST
    assert daemon.word(vitals.WORD_ACTIVE) == limit
    assert daemon.thread_word(9, vitals.CELL_BYTES_OUT) == limit
    assert daemon.total(vitals.CELL_BYTES_OUT, vitals.THREADS) == limit
    assert vitals.plus(limit, limit, 1) == limit
    assert vitals.plus(1, 2) == 3
    assert int(float(limit)) == limit  # as JSON's readers have it


def test_a_sum_looks_at_no_more_blocks_than_there_are(sides: tuple[Page, Page]) -> None:
    worker, daemon = sides
    worker.slots[:] = b"\xff" * vitals.SLOTS
    assert daemon.total(vitals.CELL_REQUESTS, 10**9) == 0


def test_threads_that_write_each_their_own_word_lose_no_count(sides: tuple[Page, Page]) -> None:
    worker, daemon = sides
    rounds = 20_000

    def count(index: int) -> None:
        cells = worker.thread(index)
        for _ in range(rounds):
            cells[vitals.CELL_REQUESTS] += 1
        cells.release()

    threads = [threading.Thread(target=count, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert daemon.total(vitals.CELL_REQUESTS, 4) == 4 * rounds


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.005, 0), (0.0051, 1), (1.0, 7), (10.0, 10), (10.1, 11), (1e9, 11)]
)
def test_a_duration_is_counted_below_the_first_bound_that_holds_it(seconds: float, place: int) -> None:
    assert vitals.latency_cell(seconds) == vitals.CELL_LATENCY + place


def test_the_latency_cells_end_before_the_next_cell() -> None:
    assert vitals.latency_cell(1e9) < vitals.CELL_LATENCY_SUM_US < 32


def test_a_page_can_be_closed_although_its_descriptor_is_gone() -> None:
    fd = vitals.create("test")
    page = Page(fd)
    os.close(fd)
    page.header[0] = 1
    assert page.word(0) == 1
    page.close()
