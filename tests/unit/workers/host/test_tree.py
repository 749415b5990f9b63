"""The versioned folder: what is staged, switched, put back and found again after a kill."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from onehost.workers.host.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, lambda folder, number: {"000.conf": f"tree {number}\n".encode()})
    tree.recover()
    tree.signalled()
    return tree


def put(tree: Tree, owner: int, text: str, name: str = "a") -> None:
    tree.put(owner, {f"{name}.{owner}.conf": text.encode()})


def go_live(tree: Tree) -> None:
    tree.build()
    tree.switch()
    tree.signalled()
    tree.settle()


def live(tree: Tree) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((tree.folder / "live").iterdir())}


def test_the_first_tree_holds_what_is_derived(tree: Tree) -> None:
    assert live(tree) == {"000.conf": "tree 1\n"}
    assert not tree.unsignalled()


def test_nothing_live_changes_before_the_switch(tree: Tree) -> None:
    put(tree, 5, "new")
    staged = tree.build()
    assert (staged / "a.5.conf").read_text() == "new"
    assert live(tree) == {"000.conf": "tree 1\n"}
    tree.switch()
    assert live(tree) == {"000.conf": "tree 2\n", "a.5.conf": "new"}


def test_what_does_not_differ_is_not_changed(tree: Tree) -> None:
    put(tree, 5, "same")
    go_live(tree)
    put(tree, 5, "same")
    assert tree.changed() == frozenset()
    tree.put(6, {})
    assert tree.changed() == frozenset()


def test_unchanged_files_are_linked_and_changing_one_leaves_the_old_tree_alone(tree: Tree) -> None:
    put(tree, 5, "five")
    put(tree, 6, "six", "b")
    go_live(tree)
    inode = (tree.live / "b.6.conf").stat().st_ino
    old = tree.live
    put(tree, 5, "FIVE")
    tree.build()
    tree.switch()
    assert (tree.live / "b.6.conf").stat().st_ino == inode
    assert (old / "a.5.conf").read_text() == "five"
    tree.settle()
    assert not old.exists()


def test_a_removal_takes_its_own_files_alone(tree: Tree) -> None:
    put(tree, 5, "old alice")
    go_live(tree)
    put(tree, 6, "new alice")
    tree.put(5, {})
    go_live(tree)
    assert (tree.holders("a"), tree.owners()) == ({6}, {6})
    tree.put(5, {})
    assert tree.changed() == frozenset()


def test_restore_after_a_refused_try_and_after_the_switch(tree: Tree) -> None:
    put(tree, 5, "good")
    go_live(tree)
    put(tree, 5, "bad")
    put(tree, 6, "fine", "b")
    tree.build()
    tree.restore(5)
    assert tree.changed() == {6}
    staged = tree.build()
    assert (staged / "a.5.conf").read_text() == "good"
    tree.switch()
    tree.restore(6)
    assert tree.changed() == {6}
    go_live(tree)
    assert live(tree) == {"000.conf": "tree 4\n", "a.5.conf": "good"}


def test_staging_again_after_a_restore(tree: Tree) -> None:
    put(tree, 5, "x")
    tree.build()
    tree.restore(5)
    tree.build()
    put(tree, 5, "x")
    assert (tree.build() / "a.5.conf").read_text() == "x"
    go_live(tree)
    assert live(tree)["a.5.conf"] == "x"


def test_a_kill_between_switch_and_signal_shows(tree: Tree) -> None:
    put(tree, 5, "new")
    tree.build()
    tree.switch()
    again = Tree(tree.folder, tree._derive)
    again.recover()
    assert again.unsignalled()
    assert again.files(5) == {"a.5.conf": b"new"}


def test_a_kill_while_staging_leaves_the_live_tree(tree: Tree) -> None:
    put(tree, 5, "half")
    tree.build()
    again = Tree(tree.folder, tree._derive)
    again.recover()
    assert not again.unsignalled()
    assert again.files(5) == {}
    put(again, 6, "six", "b")
    go_live(again)
    assert live(again) == {"000.conf": "tree 2\n", "b.6.conf": "six"}


def test_a_newer_version_that_derives_otherwise_makes_a_new_tree_and_keeps_what_is_owned(tree: Tree) -> None:
    put(tree, 5, "mine")
    go_live(tree)
    newer = Tree(tree.folder, lambda folder, number: {"000.conf": b"newer"})
    newer.recover()
    assert live(newer) == {"000.conf": "newer", "a.5.conf": "mine"}
    assert newer.unsignalled()


def test_names_must_bear_their_owner(tree: Tree) -> None:
    with pytest.raises(ValueError, match="not a name"):
        tree.put(5, {"a.6.conf": b""})


@pytest.mark.parametrize("place", ["live", "staged", "trees/12"])
def test_the_culprit_is_found_in_a_daemons_words(tree: Tree, place: str) -> None:
    words = f"AH00526: Syntax error on line 3 of {tree.folder}/{place}/alice.812.conf:\nInvalid command 'x'"
    assert tree.owner_in(words) == "812"
    assert tree.owner_in("Syntax error on line 1 of /etc/apache2/conf-enabled/other.conf:") == ""
    assert tree.owner_in(f"{tree.folder}/live/000.conf") == ""


def test_ten_thousand_files(tree: Tree) -> None:
    for owner in range(1, 10001):
        put(tree, owner, "x", f"n{owner}")
    go_live(tree)
    began = time.monotonic()
    put(tree, 77, "changed", "n77")
    go_live(tree)
    seconds = time.monotonic() - began
    assert len(os.listdir(tree.live)) == 10001
    assert seconds < 2, seconds
