"""deploy/monitoring: alerts and dashboard ask for what the gateway exposes."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families
from shipping.shipped import ROOT, load

from gateway import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

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
async def exposed(dev: Dev) -> set[str]:
    """The names under which Prometheus stores what a running gateway exposes."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{dev.doors.admin}/metrics")).text
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        f"{family.name}{ending}" for family in text_string_to_metric_families(text) for ending in endings[family.type]
    }


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_expression_is_promql_that_asks_for_something(where: str, expression: str) -> None:
    assert _selectors(expression)


async def test_every_metric_that_is_asked_for_is_exposed(exposed: set[str]) -> None:
    assert _names(EXPRESSIONS) - PROMETHEUS - RECORDED <= exposed


async def test_every_metric_is_on_the_dashboard_or_in_an_alert(exposed: set[str]) -> None:
    histogram = re.compile(r"_(bucket|sum|count)$")
    asked = {histogram.sub("", each) for each in _names(EXPRESSIONS)}
    ours = {histogram.sub("", each) for each in exposed if re.match(r"session_gateway_(?!\w+_created$)", each)}

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
def test_an_alert_names_no_label_that_was_aggregated_away(name: str) -> None:
    kept = {label for each in re.findall(r"by \(([^)]*)\)", ALERTS[name]["expr"]) for label in each.split(", ")}
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(ALERTS[name]["annotations"].values())))

    assert named <= (kept or {"job", "instance"})


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
