"""The manifests: rendered, held to Kubernetes' schemas, and to what they promise."""

import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from portrait.settings import PREFIX, Settings
from tests.deploy import DEPLOY, ROOT
from tests.deploy.chart import is_pods, render_with
from tests.deploy.manifests import TREES, Manifest, pick, render, settings_map
from tests.deploy.test_prometheus import promtool

FOREIGN = {"PrometheusRule", "ServiceMonitor", "ScaledObject"}
"""Kinds of operators whose schemas are not here."""

CUSTOM = {
    name: schema
    for file in ("gateway-api", "stunner")
    for name, schema in json.loads((Path(__file__).parent / "schemas" / f"{file}.json").read_text()).items()
}
"""Schemas of custom resources by `GROUP/VERSION/KIND`."""


def given_settings(manifests: list[Manifest]) -> dict[str, str]:
    """The settings of the service."""
    found: dict[str, str] = settings_map(manifests)["data"]
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    (found,) = [each for each in manifests if is_pods(each)]
    spec: Manifest = found["spec"]["template"]["spec"]
    return spec


def check(manifest: Manifest) -> None:
    """Hold an object to its schema: Kubernetes' own, or that of its custom resource; neither takes unknown members."""
    name = f"{manifest['apiVersion']}/{manifest['kind']}"
    if name in CUSTOM:
        jsonschema.validate(manifest, CUSTOM[name])
    else:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("tree", TREES)
def test_every_manifest_keeps_to_its_schema(tree: str) -> None:
    manifests = [*render(tree), *render_with(tree, "tokens", "turn", "cameras", "deletion-cost")]
    assert len(manifests) >= 20
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            check(manifest)


def test_the_schemas_of_custom_resources_are_strict() -> None:
    (route,) = [each for each in render("base") if each["kind"] == "HTTPRoute"]
    broken = (
        route | {"extra": 1},
        route | {"spec": route["spec"] | {"hostname": "portrait.example"}},
        route | {"spec": route["spec"] | {"rules": [{"matches": [{"path": {"type": "Prefix", "value": "/"}}]}]}},
    )
    for each in broken:
        with pytest.raises(jsonschema.ValidationError):
            check(each)


@pytest.mark.parametrize("tree", TREES)
def test_no_pod_has_root_or_a_writable_file_system(tree: str) -> None:
    """What the level `restricted` of Pod Security asks for; its namespace enforces it but for the host's network."""
    manifests = render_with(tree, "deletion-cost")
    for spec in (
        each["spec"]["template"]["spec"] for each in manifests if each["kind"] in ("Deployment", "StatefulSet")
    ):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert not any("hostPath" in volume for volume in spec.get("volumes", ()))
        assert not any("hostPort" in port for port in container.get("ports", ()))
    level = pick(manifests, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == ("privileged" if pod(manifests).get("hostNetwork") else "restricted")


@pytest.mark.parametrize("tree", TREES)
def test_pods_find_each_other_while_they_drain_and_nobody_else_reaches_their_ports(tree: str) -> None:
    manifests = render(tree)
    services = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Service"}
    headless = services[given_settings(manifests)["PORTRAIT_CLUSTER_PEERS"]]
    assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)
    first = Settings.model_fields["cluster_port"].default
    assert [port["port"] for port in headless["ports"]] == [first, first + 1]
    policy = pick(manifests, "NetworkPolicy")["spec"]
    open_to_all = [port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]]
    to_pods = [port["port"] for rule in policy["ingress"] if "from" in rule for port in rule["ports"]]
    assert to_pods == [first, first + 1]
    assert len(open_to_all) == 4, "HTTP, gRPC, and media over UDP and TCP"
    assert not set(open_to_all) & set(to_pods)


def test_each_pod_of_a_stateful_set_has_a_port_of_its_own() -> None:
    manifests = render("overlays/node-port")
    (command,) = [each for each in pod(manifests)["containers"][0]["command"] if "PORTRAIT_MEDIA_PORT" in each]
    match = re.search(r"\$\(\((\d+) \+ POD_INDEX\)\)", command)
    assert match is not None
    services = [each["spec"] for each in manifests if each["metadata"]["name"].startswith("portrait-media-")]
    for index, service in enumerate(services):
        assert service["selector"]["apps.kubernetes.io/pod-index"] == str(index)
        assert {port["protocol"] for port in service["ports"]} == {"UDP", "TCP"}
        for port in service["ports"]:
            assert port["port"] == port["targetPort"] == port["nodePort"] == int(match[1]) + index
    assert pick(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] == len(services)
    udp = pick(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"][2]
    assert (udp["port"], udp["endPort"]) == (int(match[1]), int(match[1]) + len(services) - 1)


def test_udp_routes_lead_each_port_to_its_own_pod() -> None:
    manifests = render("overlays/udp-route")
    services = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Service"}
    (gateway,) = [each for each in manifests if each["metadata"]["name"] == "portrait-media"]
    listeners = {each["name"]: each["port"] for each in gateway["spec"]["listeners"]}
    for route in (each["spec"] for each in manifests if each["kind"] == "UDPRoute"):
        (parent,), (rule,) = route["parentRefs"], route["rules"]
        (backend,) = rule["backendRefs"]
        assert listeners.pop(parent["sectionName"]) == backend["port"]
        assert backend["port"] in {port["port"] for port in services[backend["name"]]["ports"]}
        assert services[backend["name"]]["type"] == "ClusterIP"
    assert not listeners


@pytest.mark.parametrize("tree", TREES)
def test_the_pod_lives_longer_than_its_drain(tree: str) -> None:
    manifests = render(tree)
    settings, spec = given_settings(manifests), pod(manifests)
    (container,) = spec["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + float(settings["PORTRAIT_DRAIN_SECONDS"]) < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("tree", TREES)
def test_the_service_is_given_only_settings_it_knows(tree: str) -> None:
    manifests = render(tree)
    for name in given_settings(manifests):
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields
    # Kubernetes would add PORTRAIT_SERVICE_HOST and its like, which the service refuses.
    assert pod(manifests)["enableServiceLinks"] is False


def test_grpc_clients_see_every_pod() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in render("base") if each["kind"] == "Service"}
    assert services["portrait-grpc"]["clusterIP"] == "None"


def test_media_leaves_from_the_nodes_own_network() -> None:
    manifests = render("overlays/media")
    assert pod(manifests)["hostNetwork"] is True
    # The same ports twice on a node: the old pod must go first.
    assert pick(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


@pytest.mark.parametrize(("tree", "kind"), [("base", "HorizontalPodAutoscaler"), ("overlays/keda", "ScaledObject")])
def test_exactly_one_autoscaler_owns_the_number_of_pods(tree: str, kind: str) -> None:
    manifests = render(tree)
    scalers = [each["kind"] for each in manifests if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert scalers == [kind]
    assert "replicas" not in pick(manifests, "Deployment")["spec"]


def sessions_metric() -> Manifest:
    (metric,) = [each for each in autoscaler_metrics() if each["type"] == "Pods"]
    return metric


def autoscaler_metrics() -> list[Manifest]:
    return pick(render("base"), "HorizontalPodAutoscaler")["spec"]["metrics"]


def keda_triggers() -> dict[str, Manifest]:
    return {each["type"]: each for each in pick(render("overlays/keda"), "ScaledObject")["spec"]["triggers"]}


def test_both_autoscalers_look_at_the_cpu_as_well() -> None:
    """With the quality that goes down first, sessions alone would add a pod too late."""
    (metric,) = [each for each in autoscaler_metrics() if each["type"] == "Resource"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    cpu = keda_triggers()["cpu"]
    assert (cpu["metricType"], cpu["metadata"]) == ("Utilization", {"value": "70"})
    # A share of what is requested: without a request there would be nothing to compare with.
    (container,) = pick(render("base"), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"]


def test_the_autoscaler_and_its_adapter_speak_of_the_same_metric() -> None:
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yml").read_text())["rules"]["custom"]
    assert sessions_metric()["pods"]["metric"]["name"] == rule["name"]["as"]


def test_both_autoscalers_see_the_share_of_sessions_in_use(tmp_path: Path) -> None:
    """Their own queries, answered by Prometheus' engine: three of four sessions on one pod, one of four on another."""
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yml").read_text())["rules"]["custom"]
    adapter = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="portrait"')
    trigger = keda_triggers()["prometheus"]
    labels = 'namespace="portrait", pod="{}"'
    given = {
        f"portrait_sessions{{{labels.format('a')}, transport='grpc'}}": 2,
        f"portrait_sessions{{{labels.format('a')}, transport='webrtc'}}": 1,
        f"portrait_sessions{{{labels.format('b')}, transport='grpc'}}": 1,
        f"portrait_sessions_limit{{{labels.format('a')}}}": 4,
        f"portrait_sessions_limit{{{labels.format('b')}}}": 4,
    }
    asked = [
        (adapter, [{"labels": '{pod="a"}', "value": 0.75}, {"labels": '{pod="b"}', "value": 0.25}]),
        (trigger["metadata"]["query"], [{"labels": "{}", "value": 1.0}]),
    ]
    test = {
        "interval": "15s",
        "input_series": [{"series": series, "values": f"{value}x4"} for series, value in given.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "1m", "exp_samples": samples} for expr, samples in asked],
    }
    file = tmp_path / "autoscalers.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", file)
    # One pod's worth of sessions in use, at 0.7 of a pod each: two pods. Both want the same fullness.
    assert sessions_metric()["pods"]["target"]["averageValue"] == "700m"
    assert trigger["metadata"]["threshold"] == "0.7"


def routed(address: str) -> bool:
    """Whether the HTTPRoute leads an address to the service; a prefix ends where an element of the address does."""
    (rule,) = pick(render("base"), "HTTPRoute")["spec"]["rules"]
    paths = [match["path"] for match in rule["matches"]]
    return any(
        address == path["value"] or (path["type"] == "PathPrefix" and address.startswith(path["value"] + "/"))
        for path in paths
    )


def test_the_page_and_all_that_the_protocol_names_are_shown_to_the_world_but_what_is_for_machines() -> None:
    table = (
        (ROOT / "docs" / "reference" / "protocol.md").read_text().partition("\n## HTTP\n")[2].partition("\n```\n")[0]
    )
    named = {"/", *re.findall(r"`(?:[A-Z]+ )?(/[^`?]*)", table)}
    assert {"/portrait.js", "/litert/", "/v1/segment", "/whep/{stream}/mask"} <= named
    # The last two are a box's that has its own authority; here TLS ends at the Gateway.
    assert {address for address in named if not routed(address)} == {
        "/metrics",
        "/healthz",
        "/readyz",
        "/trust",
        "/ca.crt",
    }
