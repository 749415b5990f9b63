"""As host_driver.py, for a director: the view is what was applied last, and a drain is looked at until it is over."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import host_driver

from onehost.workers.entry import Entry


class Applied:
    """What this driver has applied, as a ledger would tell it."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}

    def all(self, noun: str) -> list[Entry]:
        return [one for one in self.entries.values() if one.noun == noun]


class DirectorDriver(host_driver.Driver):
    def __init__(self) -> None:
        super().__init__()
        host_driver.VIEW = self.applied = Applied()

    def apply(self, entries: list[dict[str, Any]], die: str = "") -> dict[str, Any]:
        answer = super().apply(entries, die)
        for given in entries:
            if answer["entries"][str(given["id"])]["outcome"] == "applied":
                self.applied.entries.pop(given["id"], None)
                if given["spec"] is not None:
                    self.applied.entries[given["id"]] = host_driver.entry({**given, "applied_spec": given["spec"]})
        return answer

    def until_over(self, entry: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Applies an entry again and again, as the executor does while it is Pending."""
        began = time.monotonic()
        while True:
            spent = time.monotonic() - began
            answer = self.apply([{**entry, "started_seconds": spent}])
            outcome = answer["entries"][str(entry["id"])]
            if outcome["outcome"] != "Pending" or spent > seconds:
                return {**outcome, "seconds": spent}
            time.sleep(0.5)

    def die(self) -> dict[str, Any]:
        """Whatever is staged is forgotten, as after a kill of the worker."""
        self.__init__()  # type: ignore[misc]
        return {}


def main() -> None:
    driver = DirectorDriver()
    for line in sys.stdin:
        order = json.loads(line)
        what = order.pop("do")
        try:
            answer = getattr(driver, what)(**order)
        except Exception as error:
            answer = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
