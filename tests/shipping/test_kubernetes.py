"""deploy/kubernetes: valid for every Kubernetes that is kept, and in step with the gateway."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from shipping.shipped import BIN, ROOT, documents, instruction, load, render

from gateway.configuration import load_settings
from gateway.settings import Admin, ConfigurationError, GraphQL, Grpc, Settings
from gateway.workers.count import count_workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shipping.shipped import Document

    from stage import Dev

FOLDER = ROOT / "deploy/kubernetes"
EXAMPLE = render(FOLDER / "example")
DOCUMENTS = documents(EXAMPLE)
LABELS = {"app.kubernetes.io/name": "session-gateway"}


def only(kind: str, name: str | None = None) -> Document:
    (found,) = (each for each in DOCUMENTS if each["kind"] == kind and name in {None, each["metadata"]["name"]})
    return found


POD = only("Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_kubernetes_takes_every_document(version: str, tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(EXAMPLE)

    status, said = _validate(file, "--kubernetes-version", version)

    assert status == 0, said
    assert len(re.findall(f"passed for .* against version {version}$", said, re.MULTILINE)) == len(DOCUMENTS)


def test_what_the_validator_is_for(tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(EXAMPLE.replace("readinessProbe:", "readynessProbe:"))

    status, said = _validate(file)

    assert status == 1
    assert "readynessProbe" in said


def test_every_file_is_used() -> None:
    for file in FOLDER.glob("*/kustomization.yaml"):
        kustomization = load(str(file))
        used = {*kustomization["resources"], *(name for each in _generators(kustomization) for name in each)}
        assert {each.name for each in file.parent.iterdir()} == {
            "kustomization.yaml",
            *(each for each in used if "/" not in each),
        }


def test_the_monitor_fits_in(tmp_path: Path) -> None:
    """The component, as one's own copy of the example takes it."""
    here = tmp_path / "kustomization.yaml"
    relative = os.path.relpath(FOLDER, tmp_path.resolve())
    here.write_text(f"resources: [{relative}/base]\ncomponents: [{relative}/prometheus-operator]\n")

    (monitor,) = (each for each in documents(render(tmp_path)) if each["kind"] == "PodMonitor")

    assert monitor["spec"]["selector"]["matchLabels"] == LABELS
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {each["name"] for each in CONTAINER["ports"]}
    assert endpoint["path"] == "/metrics"


def test_all_is_in_one_namespace() -> None:
    namespace = only("Namespace")["metadata"]["name"]

    assert {each["metadata"].get("namespace", namespace) for each in DOCUMENTS} == {namespace}
    assert all("namespace" in each["metadata"] for each in DOCUMENTS if each["kind"] != "Namespace")


def test_selectors_select_the_pods() -> None:
    deployment = only("Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == LABELS
    selectors = [
        deployment["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in POD["topologySpreadConstraints"]),
        only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"] for each in DOCUMENTS if each["kind"] == "Service"),
    ]
    assert selectors == [LABELS] * len(selectors)
    target = only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", only("Deployment")["metadata"]["name"])


def test_ports_agree_everywhere(settings: Settings) -> None:
    listening = {name: getattr(settings, name).port for name in ("graphql", "grpc", "admin")}
    assert listening == {"graphql": GraphQL().port, "grpc": Grpc().port, "admin": Admin().port}
    assert {each["name"]: each["containerPort"] for each in CONTAINER["ports"]} == listening
    assert instruction("EXPOSE").split() == [str(each) for each in listening.values()]

    doors = [port for each in DOCUMENTS if each["kind"] == "Service" for port in each["spec"]["ports"]]
    assert {(each["targetPort"], each["port"]) for each in doors} == {
        (name, listening[name]) for name in ("graphql", "grpc")
    }
    let_in = [[port["port"] for port in rule["ports"]] for rule in only("NetworkPolicy")["spec"]["ingress"]]
    assert let_in == [["graphql", "grpc"], ["admin"]]


def test_grpc_clients_see_every_pod() -> None:
    service = only("Service", "session-gateway-grpc")["spec"]

    assert service["clusterIP"] == "None"
    assert [each["name"] for each in service["ports"]] == ["grpc"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
async def test_probes_are_answered(probe: str, dev: Dev) -> None:
    asked = CONTAINER[probe]["httpGet"]
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{dev.doors.admin}{asked['path']}")

    assert answer.status_code == 200
    assert asked["port"] == "admin"
    assert asked["path"] == {"readinessProbe": "/readyz"}.get(probe, "/livez")


def test_the_pod_can_do_no_more_than_it_needs() -> None:
    """Pod Security Standards, restricted, and a read-only root."""
    namespace = only("Namespace")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    pod, container = POD["securityContext"], CONTAINER["securityContext"]

    assert pod["runAsNonRoot"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == instruction("USER")
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & POD.keys()
    assert all("hostPath" not in each for each in POD["volumes"])
    assert POD["automountServiceAccountToken"] is False
    assert only("ServiceAccount")["automountServiceAccountToken"] is False


def test_services_put_nothing_into_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the gateway would not start: the variables are called as its settings are."""
    variable = only("Service", "session-gateway")["metadata"]["name"].upper().replace("-", "_") + "_PORT"
    monkeypatch.setenv(variable, "tcp://10.0.0.1:8000")
    with pytest.raises(ConfigurationError, match=f"{variable}: is not a setting"):
        load_settings()

    assert POD["enableServiceLinks"] is False


def test_the_gateway_has_time_to_stop(settings: Settings) -> None:
    """It serves on until the endpoints are without it, and then finishes what is under way, with seconds left over."""
    delay, grace = settings.shutdown.delay, settings.shutdown.grace
    assert delay >= 5
    assert settings.grpc.connections.max_age * 1.1 < grace  # so that no call is lost
    assert delay + grace + 5 <= POD["terminationGracePeriodSeconds"]
    assert "lifecycle" not in CONTAINER


def test_there_is_a_version_to_run() -> None:
    tag = CONTAINER["image"].rpartition(":")[2]

    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)


def test_names_that_are_referred_to_exist() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in DOCUMENTS}
    references = {
        *(("ConfigMap", each["configMap"]["name"]) for each in POD["volumes"] if "configMap" in each),
        *(("Secret", each["secret"]["secretName"]) for each in POD["volumes"] if "secret" in each),
        *(("Secret", each["valueFrom"]["secretKeyRef"]["name"]) for each in CONTAINER["env"] if "valueFrom" in each),
        ("ServiceAccount", POD["serviceAccountName"]),
    }

    assert {kind for kind, _ in references} == {"ConfigMap", "Secret", "ServiceAccount"}
    assert references <= names
    assert {each["name"] for each in POD["volumes"]} == {each["name"] for each in CONTAINER["volumeMounts"]}


def test_secrets_are_placeholders() -> None:
    values = [value for each in DOCUMENTS if each["kind"] == "Secret" for value in _decoded(each).values()]

    assert len(values) == 2
    assert all("REPLACE-ME" in each for each in values)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the gateway in the pod reads: from its files, with its environment."""
    mounts = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    here: dict[str, Path] = {}
    for volume in POD["volumes"]:
        folder = here[mounts[volume["name"]]] = tmp_path / volume["name"]
        folder.mkdir()
        for name, text in _held(volume).items():
            (folder / name).write_text(text)
    for each in CONTAINER["env"]:
        if each["name"] == "SESSION_GATEWAY_CONFIG":
            folder_there, _, file = each["value"].rpartition("/")
            config = here[folder_there] / file
        else:
            reference = each["valueFrom"]["secretKeyRef"]
            monkeypatch.setenv(each["name"], _decoded(only("Secret", reference["name"]))[reference["key"]])
    paths = re.compile("|".join(f'(?<="){re.escape(there)}(?=/)' for there in here))
    config.write_text(paths.sub(lambda found: str(here[found[0]]), config.read_text()))
    return load_settings(config)


def test_the_settings_are_good(settings: Settings) -> None:
    assert settings.tenants["mytenant"].client_secret.get_secret_value() == "REPLACE-ME"
    assert settings.cache.backend.get_secret_value().startswith("valkey://")
    assert settings.access.configured
    assert not any(each.on_loopback for each in (settings.graphql, settings.grpc, settings.admin))


def test_a_pod_has_one_process_whatever_its_node_has(settings: Settings) -> None:
    """Each core of the node would have one else, and many need more memory than the pod may have."""
    assert "cpu" not in CONTAINER["resources"]["limits"]

    assert CONTAINER["args"] == ["serve"]
    assert count_workers(settings) == (1, None)


def test_the_network_lets_the_gateway_reach_what_it_needs(settings: Settings) -> None:
    ports = [
        (port.get("protocol", "TCP"), port["port"])
        for rule in only("NetworkPolicy")["spec"]["egress"]
        for port in rule["ports"]
    ]
    redis = re.search(r":(\d+)/", settings.cache.backend.get_secret_value())
    assert redis is not None

    traces = ("TCP", 4318)  # OTLP's port for HTTP, the only protocol here
    upstream = ("TCP", settings.upstream.base_url.port)
    assert ports == [("UDP", 53), ("TCP", 53), ("TCP", int(redis[1])), traces, upstream]


def _validate(file: Path, *options: str) -> tuple[int, str]:
    """Exit status, and what it says; it counts what it has no schema for as good."""
    command: list[str | Path] = [BIN / "kubernetes-validate", "--strict", *options, file]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout


def _generators(kustomization: Document) -> Iterator[list[str]]:
    for kind in ("configMapGenerator", "secretGenerator"):
        for each in kustomization.get(kind, ()):
            yield each.get("files", [])


def _held(volume: dict[str, Any]) -> dict[str, str]:
    """The files of a volume."""
    if "configMap" in volume:
        held: dict[str, str] = only("ConfigMap", volume["configMap"]["name"])["data"]
        return held
    return _decoded(only("Secret", volume["secret"]["secretName"])) if "secret" in volume else {}


def _decoded(secret: Document) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
