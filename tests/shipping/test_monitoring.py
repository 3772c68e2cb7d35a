"""deploy/monitoring: alerts and dashboard ask for what the gateway exposes."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import promql_parser
import pytest
from observability.metrics import made, parsed
from prometheus_client.parser import text_string_to_metric_families
from shipping.shipped import ROOT, load

from gateway import errors
from gateway.telemetry import SHED_BECAUSE, WRITES
from gateway.telemetry.prometheus import Metrics
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.telemetry.summed import SummedMetrics
from gateway.tracing.spans import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stage import Dev

FOLDER: Final = ROOT / "deploy/monitoring"
GROUPS: Final = load("deploy/monitoring/alerts.yaml")["groups"]
RULES: Final[list[dict[str, Any]]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED: Final = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
PANELS: Final[list[dict[str, Any]]] = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
PROMETHEUS: Final = {"up", "ALERTS"}
"""What Prometheus makes itself."""


def _expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and where it is."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']}, {target['refId']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((.+), \w+\)", variable.get("definition", "")):
            yield f"${variable['name']}", found[1]


EXPRESSIONS: Final = list(_expressions())


def _selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """The metrics that it asks for. Fails if it is not PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(part: promql_parser.Expr) -> bool:
        if isinstance(part, promql_parser.MatrixSelector):
            found.append(part.vector_selector)
        elif isinstance(part, promql_parser.VectorSelector):
            found.append(part)
        return True

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), visit)
    return found


def _names(expressions: list[tuple[str, str]]) -> set[str]:
    return {str(each.name) for _, expression in expressions for each in _selectors(expression)}


@pytest.fixture
async def exposed(dev: Dev, tmp_path: Path) -> set[str]:
    """The names under which Prometheus stores what a running gateway exposes, by one worker or by several."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{dev.doors.admin}/metrics")).text
    summed = SummedMetrics(tmp_path, lambda: [os.getpid()]).exposition().decode()
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        f"{family.name}{ending}"
        for each in (text, summed)
        for family in text_string_to_metric_families(each)
        for ending in endings[family.type]
    }


def _labels_by_name() -> dict[str, set[str]]:
    """The labels of all that can be asked for, by the names under which Prometheus stores it."""
    metrics = Metrics()
    RequestMetrics(metrics.registry)
    alerts = _TARGET | {"alertname", "alertstate", "severity"}
    known = {"up": _TARGET, "ALERTS": alerts, **{each["record"]: {"job"} for each in RULES if "record" in each}}
    for name, (kind, labels) in made(metrics.registry).items():
        if kind == "histogram":
            known |= {f"{name}_bucket": labels | _TARGET | {"le"}, f"{name}_sum": labels | _TARGET}
            known[f"{name}_count"] = labels | _TARGET
        else:
            known[name] = labels | _TARGET
    return known


_TARGET: Final = {"job", "instance"}
"""What Prometheus adds, of where it found a metric."""
LABELS: Final = _labels_by_name()


def _labels(part: promql_parser.Expr) -> set[str]:
    """The labels that it may have. Fails where it asks for a label that there is not."""
    match part:
        case promql_parser.VectorSelector():
            there = LABELS.get(str(part.name), _TARGET)
            assert {each.name for each in part.matchers.matchers} <= there
            return there
        case promql_parser.MatrixSelector():
            return _labels(part.vector_selector)
        case promql_parser.AggregateExpr():
            there, kept = _labels(part.expr), set(part.modifier.labels if part.modifier else [])
            assert kept <= there
            return kept
        case promql_parser.BinaryExpr():
            assert part.modifier is None or not part.modifier.matching
            return _labels(part.lhs) | _labels(part.rhs)
        case promql_parser.Call():
            return set[str]().union(*map(_labels, part.args))
        case promql_parser.ParenExpr():
            return _labels(part.expr)
        case promql_parser.NumberLiteral():
            return set()
        case _:
            raise TypeError(part)


def _labels_of(expression: str) -> set[str]:
    return _labels(promql_parser.parse(expression.replace("$__rate_interval", "5m")))


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_expression_is_promql_that_asks_for_something(where: str, expression: str) -> None:
    assert _selectors(expression)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_label_that_is_asked_for_is_there(where: str, expression: str) -> None:
    _labels_of(expression)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_are_there(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= _labels_of(target["expr"])


def test_alerts_are_tested_with_labels_that_are_there() -> None:
    for test in load("deploy/monitoring/alerts_test.yaml")["tests"]:
        for each in test["input_series"]:
            _labels_of(each["series"])


def test_what_is_counted_once_in_a_while_is_told_from_the_start(tmp_path: Path) -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    told = parsed(Metrics().exposition().decode())

    for outcome, operation in itertools.product(("WRITE_OUTCOME_UNKNOWN", "WRITE_DISCARDED"), WRITES):
        assert outcome in ALERTS["SessionGatewayWritesLost"]["expr"]
        labels = {"operation": operation, "outcome": outcome}
        assert told["session_gateway_writes_total", frozenset(labels.items())] == 0
    for cause in SHED_BECAUSE:
        assert told["session_gateway_upstream_shed_total", frozenset({("cause", cause)})] == 0
    restarts = SummedMetrics(tmp_path, lambda: [os.getpid()]).exposition().decode()
    assert "session_gateway_worker_restarts_total 0.0" in restarts


async def test_every_metric_that_is_asked_for_is_exposed(exposed: set[str]) -> None:
    assert _names(EXPRESSIONS) - PROMETHEUS - RECORDED <= exposed


async def test_every_metric_is_on_the_dashboard_or_in_an_alert(exposed: set[str]) -> None:
    histogram = re.compile(r"_(bucket|sum|count)$")
    asked = {histogram.sub("", each) for each in _names(EXPRESSIONS)}
    ours = {histogram.sub("", each) for each in exposed if each.startswith("session_gateway_")}

    assert ours - asked <= {"session_gateway_write_attempts"}  # a matter of contention, for who looks into that


def test_codes_are_those_that_callers_get() -> None:
    """`code` and `outcome` are compared with reasons of errors, or with names of gRPC's statuses."""
    known = {each.reason for each in _tree(errors.GatewayError)} | {each.name for each in grpc.StatusCode}
    compared = {
        word
        for _, expression in EXPRESSIONS
        for selector in _selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name in {"code", "outcome"}
        for word in matcher.value.split("|")
        if word.isupper()
    }

    assert "INTERNAL" in compared
    assert compared <= known


def test_alerts_and_traces_agree_on_what_is_no_fault_of_the_caller() -> None:
    (failed,) = (each["expr"] for each in RULES if each.get("record") == "job:session_gateway_requests_failed:rate5m")
    (codes,) = re.findall(r'code=~"([^"]+)"', failed)

    assert set(codes.split("|")) == FAULTS


def test_rules_are_as_prometheus_reads_them() -> None:
    """As much of `promtool check rules` as matters here."""
    assert all(each.keys() == {"name", "rules"} for each in GROUPS)
    assert len({each["name"] for each in GROUPS}) == len(GROUPS)
    assert len(ALERTS) + len(RECORDED) == len(RULES)
    for rule in RULES:
        if "record" in rule:
            assert rule.keys() == {"record", "expr"}
            assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9]+", rule["record"])
        else:
            assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
            assert promql_parser.parse_duration(rule.get("for", "1m"))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    alert = ALERTS[name]

    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert all(len(text.split()) >= 4 for text in alert["annotations"].values())


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_names_labels_that_are_there(name: str) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(ALERTS[name]["annotations"].values())))

    assert named <= _labels_of(ALERTS[name]["expr"])


def test_every_alert_has_a_test() -> None:
    """Which promtool runs."""
    tests = (FOLDER / "alerts_test.yaml").read_text("utf-8")

    assert {name for name in ALERTS if f'alertname="{name}"' not in tests} == set()


def test_alerts_do_what_their_tests_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which comes with Prometheus")
    subprocess.run([promtool, "check", "rules", "alerts.yaml"], cwd=FOLDER, check=True)
    subprocess.run([promtool, "test", "rules", "alerts_test.yaml"], cwd=FOLDER, check=True)


def test_memory_runs_short_before_the_limit_is_reached() -> None:
    deployment = load("deploy/kubernetes/base/deployment.yaml")
    limit = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]

    assert f"0.85 * {limit.removesuffix('Mi')} * 1024 * 1024" in ALERTS["SessionGatewayMemoryShort"]["expr"]
    assert limit in ALERTS["SessionGatewayMemoryShort"]["annotations"]["description"]


def test_the_dashboard_has_a_row_for_each_concern() -> None:
    assert [each["title"] for each in DASHBOARD["panels"] if each["type"] == "row"] == [
        "Traffic",
        "Errors",
        "Latency by door",
        "Cache",
        "Upstream",
        "Tokens",
        "Redis",
        "Saturation",
        "Process",
    ]
    assert DASHBOARD["schemaVersion"] >= 41


def test_panels_can_be_told_apart() -> None:
    everything = DASHBOARD["panels"]
    assert len({each["id"] for each in everything}) == len(everything)
    assert len({each["title"] for each in everything}) == len(everything)
    for one, other in itertools.combinations((each["gridPos"] for each in everything), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in everything)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_can_be_read(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    legends = [each["legendFormat"] for each in panel["targets"]]
    assert len(set(legends)) == len(legends)
    assert all(legends)


def test_the_dashboard_asks_what_its_variables_say() -> None:
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)

    assert set(re.findall(r"\$\{?([a-z]\w*)", text)) == variables
    assert all(each["datasource"]["uid"] == "${datasource}" for each in PANELS)
    assert all(target["datasource"] == panel["datasource"] for panel in PANELS for target in panel["targets"])
    assert all('job=~"$job"' in target["expr"] for panel in PANELS for target in panel["targets"])


def _tree(root: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield root
    for each in root.__subclasses__():
        yield from _tree(each)
