"""The example panel, run as its reader would run it, against a cluster with real store, broker and workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from onehost.producer.cli import manifest

from .conftest import Cluster, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def settings_file(cluster: Cluster, tmp_path: Path) -> Path:
    """The settings of the cluster's manager, as a file."""
    path = tmp_path / "onehost.toml"
    path.write_text(f'store = "{cluster.settings.store}"\n')
    return path


def _run_panel(settings_file: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOST_")}
    environment |= {"ONEHOST_CONFIG": str(settings_file)}
    command = [sys.executable, EXAMPLES / "panel.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_panel_gets_its_account_and_asks_who_did_it(cluster: Cluster, settings_file: Path) -> None:
    done = _run_panel(settings_file)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "account paula: applied on 4 of 4 nodes"
    assert sum("acknowledgement by node-web" in line for line in lines) == 3
    assert any(line.endswith("account.create by panel:example: submitted") for line in lines)
    again = _run_panel(settings_file)
    assert again.returncode == 0 and again.stdout.splitlines()[0] == lines[0]
    assert len(cluster.onehost.jobs(kind="account.create")) == 1, "the same order is the same job"


def test_the_panel_names_the_node_that_lacks_it(cluster: Cluster, settings_file: Path) -> None:
    cluster.stop_worker("web2")
    wait_until(lambda: any(n["name"] == "web2" and n["state"] == "offline" for n in cluster.onehost.status()["nodes"]))
    done = _run_panel(settings_file)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[1].startswith("  missing on web2 (offline): ")


def test_the_panel_tells_by_its_exit_status_that_there_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "onehost.toml"
    path.write_text(f'store = "sqlite:///{tmp_path}/nowhere/store.db"\n')
    done = _run_panel(path)
    assert done.returncode == 7 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_the_demo_s_accounts_can_be_applied(cluster: Cluster) -> None:
    documents = manifest.read(str(EXAMPLES / "accounts.yaml"))
    wishes = [cluster.onehost.wish(each.noun, each.name, "apply", each.spec) for each in documents]
    receipts = cluster.onehost.submit(wishes)
    assert [cluster.onehost.wait(receipt)["state"] for receipt in receipts] == ["applied"] * 6
    domains = {account["spec"]["domain"] for account in cluster.onehost.list("account")}
    assert len(domains) == 6 and any(domain.startswith("xn--") for domain in domains)
    assert all(receipt.job_id is None for receipt in cluster.onehost.submit(wishes)), "a second time nothing differs"
    assert "password" not in yaml.safe_dump([dict(each.spec) for each in documents])
