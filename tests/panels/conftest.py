"""Fixtures of the panels' browser tests."""

from tests.browser import browser_context_args, browser_type_launch_args, lab
from tests.panels.browsing import opened
from tests.panels.firefox import firefox

__all__ = ["browser_context_args", "browser_type_launch_args", "firefox", "lab", "opened"]
