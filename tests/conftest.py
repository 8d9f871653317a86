"""What holds for all tests: a law that doesn't say on how many examples it is tried, is tried on a hundred."""

from __future__ import annotations

from hypothesis import settings

from tests.effort import EFFORT, examples

settings.register_profile(EFFORT, examples(100))
settings.load_profile(EFFORT)
