"""Superseded by director.py: only for those that still import the class from here."""

from __future__ import annotations

from .director import Director

__all__ = ["Director"]
