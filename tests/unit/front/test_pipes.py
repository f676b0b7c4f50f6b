"""Pipes are lent, come back empty, and never exceed what the kernel grants."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.front import pipes
from isoproxy.front.pipes import Pipe, PipePool, affordable_pipes


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_pool_lends_up_to_its_limit_and_reuses() -> None:
    before = open_descriptors()
    pool = PipePool(1 << 16, 2)
    first, second = pool.borrow(), pool.borrow()
    assert first is not None
    assert second is not None
    assert first.capacity >= 1 << 16
    assert pool.borrow() is None
    pool.give_back(first)
    assert pool.borrow() is first
    assert pool.lent == 2
    pool.give_back(first)
    pool.give_back(second)
    pool.close()
    assert open_descriptors() == before


def test_a_pipe_with_bytes_left_is_thrown_away() -> None:
    before = open_descriptors()
    pool = PipePool(1 << 16, 1)
    pipe = pool.borrow()
    assert pipe is not None
    os.write(pipe.write_fd, b"left")
    pipe.held = 4
    pool.give_back(pipe)
    assert open_descriptors() == before
    fresh = pool.borrow()
    assert fresh is not None
    assert fresh is not pipe
    with pytest.raises(BlockingIOError):
        os.read(fresh.read_fd, 4)
    pool.give_back(fresh)
    pool.close()


def test_small_pipes_are_refused_and_asked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()
    pool = PipePool(1 << 16, 4)
    monkeypatch.setattr(pipes, "SMALLEST_USEFUL", 1 << 30)
    assert pool.borrow() is None
    assert open_descriptors() == before
    monkeypatch.undo()
    assert pool.borrow() is None


def test_without_descriptors_there_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(flags: int) -> tuple[int, int]:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "pipe2", no_more)
    assert PipePool(1 << 16, 4).borrow() is None


def test_what_the_users_budget_pays_for() -> None:
    assert affordable_pipes(16384 * 4096, 1 << 20) == 32
    assert affordable_pipes(1 << 20, 1 << 18) == 2
    assert affordable_pipes(0, 1 << 18) == 0


def test_this_machines_pool_lends_a_pipe_of_the_size_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = PipePool.for_this_machine()
    pipe = pool.borrow()
    assert isinstance(pipe, Pipe)
    pool.give_back(pipe)
    pool.close()
    tiny = tmp_path / "pages"
    tiny.write_text("16")
    monkeypatch.setattr(pipes, "USER_PAGES_SOFT", tiny)
    assert PipePool.for_this_machine().borrow() is None
    monkeypatch.setattr(pipes, "USER_PAGES_SOFT", tmp_path / "absent")
    assert PipePool.for_this_machine()._limit > 0
