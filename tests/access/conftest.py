"""What the tests of access have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gateway", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gateway")
