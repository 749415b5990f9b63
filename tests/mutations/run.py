"""Takes each safeguard away in a copy of the checkout and shows which test notices.

    .venv/bin/python tests/mutations/run.py [NAME ...]      nothing = all; exit code 1 if one goes unnoticed

Prints a line per mutation: its name, and the first test that failed. The checkout itself is not touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutations import MUTATIONS, Mutation

CHECKOUT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", "*.egg-info")


def copy(to: Path) -> Path:
    """The checkout under `to`, importable as `onehost` by the folder beside it."""
    made = to / "checkout"
    shutil.copytree(CHECKOUT, made, ignore=LEFT_OUT, symlinks=True)
    (made / ".venv").symlink_to(CHECKOUT / ".venv")
    (to / "path").mkdir()
    (to / "path" / "onehost").symlink_to(made)
    return made


def mutate(made: Path, mutation: Mutation) -> None:
    """Takes the safeguard away. Raises ValueError where the code no longer reads so: the table must follow it."""
    file = made / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) < 1:
        raise ValueError(f"{mutation.name}: {mutation.file} has no {mutation.old!r}")
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def noticed(made: Path, test: str) -> str:
    """The first test of `test` that fails; empty if all pass."""
    env = os.environ | {"PYTHONPATH": str(made.parent / "path"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(CHECKOUT / ".venv/bin/python"), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=made, env=env, capture_output=True, text=True, timeout=900)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def main() -> int:
    wanted = sys.argv[1:]
    unknown = set(wanted) - {mutation.name for mutation in MUTATIONS}
    if unknown:
        print(f"error: no such mutation: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    survived = 0
    for mutation in MUTATIONS:
        if wanted and mutation.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="onehost-mutation-") as folder:
            made = copy(Path(folder))
            mutate(made, mutation)
            by = next((name for test in mutation.tests if (made / test).exists() and (name := noticed(made, test))), "")
        survived += not by
        print(f"{mutation.name}: {by or 'NOT NOTICED'}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
