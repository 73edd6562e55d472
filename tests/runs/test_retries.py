"""Tests of which images are tried again, which fail, and when the run ends."""

import pytest

from paddleseg_infer.outcomes import Job
from paddleseg_infer.runs.retries import DEATHS_ALONE, MAX_DEATHS, Retries, Verdict

A, B, C = (Job(name, name) for name in "abc")


def test_images_of_a_worker_that_died_are_tried_again():
    retries = Retries()
    retries.result()
    assert retries.death([A, B], is_alone=False) == Verdict(again=(A, B))


def test_an_image_fails_after_two_workers_died_with_it_alone():
    retries = Retries()
    retries.result()
    assert retries.death([A], is_alone=True) == Verdict(again=(A,))
    assert retries.death([B], is_alone=True) == Verdict(again=(B,))
    assert retries.death([A], is_alone=True) == Verdict(failed=(A,))


def test_deaths_with_several_images_do_not_count_for_an_image():
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
def test_after_a_result_only_deaths_without_an_image_end_the_run(held):
    """The death of a worker that has no image says nothing about any image."""
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


def test_the_same_rules_hold_for_images_lost_by_a_cluster():
    retries = Retries()
    assert retries.lost([A, B, C], is_alone=False) == Verdict(again=(A, B, C))
    assert retries.lost([A, B], is_alone=True) == Verdict(again=(A, B))
    assert retries.lost([A, C], is_alone=True) == Verdict(again=(C,), failed=(A,))
    assert DEATHS_ALONE == 2
