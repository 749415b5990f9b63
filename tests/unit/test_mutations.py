"""The table of mutations follows the code: what each one takes away still stands where it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def table() -> Any:
    """The table, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("mutations", CHECKOUT / "tests/mutations/mutations.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mutation", table().MUTATIONS, ids=lambda each: each.name)
def test_what_is_taken_away_is_there_once(mutation: Any) -> None:
    assert (CHECKOUT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.old != mutation.new
    assert all((CHECKOUT / test).exists() for test in mutation.tests)
