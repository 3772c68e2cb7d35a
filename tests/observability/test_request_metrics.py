"""Durations fall into the buckets that prometheus_client would put them into."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from observability.metrics import parsed
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway.request import Request
from gateway.telemetry.request_metrics import _BUCKETS, RequestMetrics

NAME = "session_gateway_request_duration_seconds"


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(_BUCKETS)), max_size=30), st.integers(0, 30))
def test_they_are_counted_as_by_prometheus_client_itself(durations: list[float], at: int) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counted = RequestMetrics(ours)
    histogram = Histogram(NAME, "x", ["door", "operation"], buckets=_BUCKETS, registry=theirs)
    for number, each in enumerate(durations):
        counted.requests_finished([Request("grpc", "x", "x", 0.0, each, operation="o")])
        histogram.labels("grpc", "o").observe(each)
        if number == at:
            counted.flush({})
    counted.flush({})
    counted.flush({})

    expected = parsed(generate_latest(theirs).decode())
    found = {each: value for each, value in parsed(generate_latest(ours).decode()).items() if NAME in each[0]}
    assert found.keys() == expected.keys()
    assert all(abs(found[sample] - value) < 1e-9 for sample, value in expected.items())
