"""How often images are tried again, alone or not, and when the run gives up."""

import pytest

from paddleseg_infer.outcomes import Job
from paddleseg_infer.runs.retries import DEATHS_ALONE, MAX_DEATHS, Retries, Verdict

A, B, C = (Job(name, name) for name in "abc")


def test_images_of_a_worker_that_died_are_tried_again():
    retries = Retries()
    retries.result()
    assert retries.death([A, B], is_alone=False) == Verdict(again=(A, B))


def test_an_image_that_was_alone_with_two_dead_workers_fails():
    retries = Retries()
    retries.result()
    assert retries.death([A], is_alone=True) == Verdict(again=(A,))
    assert retries.death([B], is_alone=True) == Verdict(again=(B,))
    assert retries.death([A], is_alone=True) == Verdict(failed=(A,))


def test_deaths_among_others_do_not_count_against_an_image():
    retries = Retries()
    retries.result()
    for _ in range(3):
        assert retries.death([A, B], is_alone=False).again == (A, B)
    assert retries.death([A], is_alone=True).again == (A,)


def test_before_the_first_result_five_deaths_in_a_row_end_the_run():
    retries = Retries()
    verdicts = [retries.death([A], is_alone=False) for _ in range(MAX_DEATHS)]
    assert [verdict.no_start for verdict in verdicts] == [False] * 4 + [True]


@pytest.mark.parametrize("held", [[], [A]])
def test_after_a_result_only_deaths_without_an_image_end_it(held):
    """A worker that dies while it loads tells nothing about an image."""
    retries = Retries()
    retries.result()
    verdicts = [retries.death(held, is_alone=False) for _ in range(MAX_DEATHS + 1)]
    assert not any(verdict.no_start for verdict in verdicts)
    assert [verdict.hopeless for verdict in verdicts] == [False] * 5 + [not held]


def test_a_result_between_deaths_starts_the_count_again():
    retries = Retries()
    for _ in range(3):
        for _ in range(MAX_DEATHS - 1):
            assert not retries.death([], is_alone=False).no_start
        retries.result()
    assert retries.deaths_in_a_row == 0


def test_images_lost_by_a_cluster_are_judged_in_the_same_way():
    retries = Retries()
    assert retries.lost([A, B, C], is_alone=False) == Verdict(again=(A, B, C))
    assert retries.lost([A, B], is_alone=True) == Verdict(again=(A, B))
    assert retries.lost([A, C], is_alone=True) == Verdict(again=(C,), failed=(A,))
    assert DEATHS_ALONE == 2
