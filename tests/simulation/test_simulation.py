"""Thousands of histories of faults, one thread, no real broker: see `rules.py` for what must hold.

A failure prints its history as code, ready for `test_regressions.py`, and the blob and seed to run it again.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .histories import Histories
from .seams import taken_over
from .template import Template

#: What runs with every change, and what runs when nobody waits for it.
CI = settings(max_examples=350, stateful_step_count=30)
LONG = settings(max_examples=20_000, stateful_step_count=60)


@pytest.mark.timeout(0)
def test_histories(template: Template) -> None:
    profile = LONG if os.environ.get("ONEHOST_SIMULATION") == "long" else CI
    number = int(os.environ.get("ONEHOST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"ONEHOST_SEED={number}")
    Histories.template, Histories.seed = template, number
    how = settings(profile, deadline=None, database=None, print_blob=True, report_multiple_bugs=False,
                   suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink))  # fmt: skip
    with taken_over():
        run_state_machine_as_test(seed(number)(Histories), settings=how)
