"""The ordered map over threads, and over processes where there is much to do."""

import threading
import time

import pytest

from odtrain.system.workers import WORTH_PROCESSES, Workers, in_chunks, in_threads


def slower_first(number: int) -> int:
    time.sleep(0.02 if number % 2 == 0 else 0)
    return number


def test_results_of_threads_come_in_the_order_of_the_items():
    assert list(in_threads(slower_first, range(20), threads=4)) == list(range(20))


def test_results_of_processes_come_in_the_order_of_the_items():
    with Workers(2) as workers:
        assert list(workers.map(abs, range(-70, 0), "", pictures=WORTH_PROCESSES)) == [
            *range(70, 0, -1)
        ]


@pytest.mark.parametrize(("threads", "given", "ahead"), [(1, 3, 3), (2, None, 16)])
def test_so_many_items_are_taken_before_the_first_result_is_asked_for(threads, given, ahead):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = in_threads(slower_first, endless(), threads=threads, ahead=given)
    assert next(results) == 0
    assert len(taken) == ahead + 1  # one more for the one that came
    results.close()


@pytest.mark.parametrize("finish", [True, False])
def test_leaving_early_waits_for_what_has_begun_if_told_to(finish):
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def work(number):
        if number:
            begun.set()
            go_on.wait(5)
            ended.append(number)
        return number

    results = in_threads(work, range(9), threads=1, ahead=9, finish=finish)
    assert next(results) == 0
    assert begun.wait(5)
    threading.Timer(0.2, go_on.set).start()
    results.close()
    assert ended == ([1] if finish else [])
    go_on.set()


def test_the_last_chunk_may_be_shorter():
    assert list(in_chunks(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
