"""The operator's table of metrics is that of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from observability.metrics import made

from gateway.telemetry.prometheus import Metrics
from gateway.telemetry.request_metrics import RequestMetrics

DOCUMENT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text("utf-8")


def test_its_table_has_every_metric_with_its_type_and_labels() -> None:
    metrics = Metrics()
    RequestMetrics(metrics.registry)
    rows = re.findall(r"^\| `(session_gateway_\w+)` \| (\w+) \|([^|]*)\| [^|]+ \|$", DOCUMENT, re.MULTILINE)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}

    assert told == made(metrics.registry)


def test_its_line_is_json() -> None:
    (line,) = re.findall(r"```json\n(.*)\n```", DOCUMENT)

    assert json.loads(line)["event"] == "request"
