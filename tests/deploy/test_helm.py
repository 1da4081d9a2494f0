"""The Helm chart: what the kustomizations give, with values in place of patches."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import chart
from tests.deploy.chart import TREES, Manifest, key, render_with
from tests.deploy.manifests import needed_kubectl

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: it has wheels for x86-64")

DEFAULT = {"namespace": {"create": True}}
WITH_MONITORING = {"monitoring": {"enabled": True}}
SWITCHED_ON: dict[str, Any] = {"enabled": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, as `make chart` writes it."""
    needed_kubectl()
    folder = tmp_path_factory.mktemp("helm") / "portrait"
    chart.write(folder)
    return folder


def rendered(folder: Path, values: dict[str, Any], namespace: str = "portrait") -> list[Manifest]:
    """Every object that `helm template` gives."""
    with helm.Chart.load(folder) as loaded:
        texts = loaded.render(values=values, name="portrait", namespace=namespace)
    documents = (document for text in texts.values() for document in yaml.safe_load_all(text))
    return [document for document in documents if document is not None]


def comparable(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """By kind and name, without what is free: the hash in a ConfigMap's name, the order of named members."""
    return {key(each): _sorted(each) for each in copy.deepcopy(manifests)}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(each) for name, each in value.items()}
    if isinstance(value, list):
        items = [_sorted(each) for each in value]
        named = all(isinstance(each, dict) and "name" in each for each in items)
        return sorted(items, key=lambda each: str(each["name"])) if named else items
    return re.sub(r"^(portrait(?:-deletion-cost)?)-[a-z0-9]{10}$", r"\1", value) if isinstance(value, str) else value


@pytest.mark.parametrize("exposure", TREES)
def test_the_chart_gives_what_the_kustomization_gives(made: Path, exposure: str) -> None:
    values = DEFAULT | {"exposure": exposure} | ({} if exposure == "base" else WITH_MONITORING)
    if exposure == "stunner":
        values |= {"turn": SWITCHED_ON}
    assert comparable(rendered(made, values)) == comparable(render_with(TREES[exposure]))


@pytest.mark.parametrize("exposure", ["base", "node-port"])
@pytest.mark.parametrize(
    ("values", "components"),
    [
        ({"auth": SWITCHED_ON}, ["tokens"]),
        ({"cameras": SWITCHED_ON}, ["cameras"]),
        ({"turn": SWITCHED_ON}, ["turn"]),
        ({"auth": SWITCHED_ON, "cameras": SWITCHED_ON, "turn": SWITCHED_ON}, ["tokens", "cameras", "turn"]),
        ({"deletionCost": SWITCHED_ON}, ["deletion-cost"]),
    ],
)
def test_a_value_gives_what_its_component_gives(
    made: Path, exposure: str, values: dict[str, Any], components: list[str]
) -> None:
    values = DEFAULT | {"exposure": exposure} | ({} if exposure == "base" else WITH_MONITORING) | values
    assert comparable(rendered(made, values)) == comparable(render_with(TREES[exposure], *components))


def test_keda_takes_the_autoscalers_place(made: Path) -> None:
    got = comparable(rendered(made, DEFAULT | WITH_MONITORING | {"autoscaler": "keda"}))
    assert got == comparable(render_with("overlays/keda"))
    kinds = {each["kind"] for each in rendered(made, {"autoscaler": "none"})}
    assert not kinds & {"HorizontalPodAutoscaler", "ScaledObject"}


def test_what_an_operator_chooses_is_everywhere(made: Path) -> None:
    values = {
        "image": {"repository": "registry.example/portrait", "tag": "1.2.3"},
        "gateway": {
            "className": "cilium",
            "host": "masks.example",
            "grpcHost": "g.example",
            "certificateSecret": "tls",
        },
        "cluster": {"secretName": "shared"},
        "turn": {"enabled": True, "urls": "turn:1.2.3.4:3478", "secretName": "relay"},
        "settings": {"PORTRAIT_MAX_SESSIONS": "12"},
        "resources": {"requests": {"cpu": "4"}},
        "exposure": "stunner",
    }
    text = yaml.safe_dump_all(rendered(made, values, "masks"))
    for gone in (
        "portrait:dev",
        "portrait.example",
        "portrait-tls",
        "portrait-cluster",
        "turn.example",
        "namespace: portrait",
    ):
        assert gone not in text, gone
    for there in (
        values["image"].values(),
        values["gateway"].values(),
        ["relay", "shared", "PORTRAIT_MAX_SESSIONS: '12'"],
    ):
        for each in there:
            assert each in text, each
    assert "PORTRAIT_CLUSTER_PEERS: portrait-pods" in text, "one setting more keeps the others"


def test_other_settings_roll_the_pods_out(made: Path) -> None:
    def pods(**values: Any) -> Manifest:
        (found,) = [each for each in rendered(made, values) if each["kind"] == "Deployment"]
        return found

    assert pods() == pods()
    assert pods() != pods(settings={"PORTRAIT_LOG_LEVEL": "debug"})


@pytest.mark.parametrize(
    "values",
    [
        {"exposure": "loadbalancer"},
        {"imagee": {}},
        {"settings": {"MAX": "1"}},
        {"auth": {"enabled": "yes"}},
        {"autoscaler": 1},
    ],
)
def test_a_value_that_means_nothing_is_refused(made: Path, values: dict[str, Any]) -> None:
    with helm.Chart.load(made) as loaded, pytest.raises(helm.HelmValuesError):
        loaded.validate_schema(values)


def test_helms_own_linter_finds_nothing(made: Path) -> None:
    found = helm.lint(made, strict=True)
    assert not found["errors"]
    assert [each for each in found["messages"] if each["severity"] > 1] == []
