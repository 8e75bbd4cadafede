"""Fixtures of the panels' browser tests."""

from tests.browser import browser_context_args, browser_type_launch_args, lab

__all__ = ["browser_context_args", "browser_type_launch_args", "lab"]
