"""The Helm chart, made of the kustomizations: `python -m tests.deploy.chart FOLDER` writes it.

Each rendered object becomes a template. What differs between the trees stands in a condition on `.Values.exposure`,
what a component adds to the pod in one on the component's value, and a name that an operator chooses becomes a value.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.deploy import DEPLOY, ROOT, tool

HELM, KUSTOMIZE = DEPLOY / "helm", DEPLOY / "kubernetes"

Manifest: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str]
"""Kind and name of an object."""

TREES = {
    "base": "base", "media": "overlays/media", "node-port": "overlays/node-port", "udp-route": "overlays/udp-route",
    "stunner": "overlays/stunner",
}  # fmt: skip
"""Values of `exposure`, and the kustomization of each."""

ADDED = {"auth": "tokens", "turn": "turn", "cameras": "cameras"}
"""Values that add to the pod, and the component of each."""

NAMES = {
    "example": "{{ .Values.gateway.className }}",
    "portrait.example": "{{ .Values.gateway.host }}",
    "grpc.portrait.example": "{{ .Values.gateway.grpcHost }}",
    "portrait-tls": "{{ .Values.gateway.certificateSecret }}",
    "portrait-cluster": "{{ .Values.cluster.secretName }}",
    "portrait-tokens": "{{ .Values.auth.secretName }}",
    "portrait-cameras": "{{ .Values.cameras.secretName }}",
    "turn:turn.example:3478?transport=udp": "{{ .Values.turn.urls }}",
    "portrait:dev": "{{ .Values.image.repository }}:{{ .Values.image.tag }}",
}
"""Whole values that an operator chooses."""

CONFIG = "portrait-{{ .Values.settings | toJson | sha256sum | trunc 10 }}"
"""The ConfigMap's name: as kustomize's, another one for other settings, so that they roll the pods out."""

HASHED = re.compile(r"(portrait(?:-deletion-cost)?)-[a-z0-9]{10}")


def render(folder: Path) -> list[Manifest]:
    """Every object of a kustomization."""
    done = subprocess.run([tool("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def render_with(tree: str, *components: str) -> list[Manifest]:
    """Every object of a tree with components of ours, as an operator adds them in a kustomization of their own."""
    with tempfile.TemporaryDirectory(dir=DEPLOY) as folder:
        own = {
            "resources": [os.path.relpath(KUSTOMIZE / tree, folder)],
            "components": [os.path.relpath(KUSTOMIZE / "components" / each, folder) for each in components],
            "images": [{"name": "portrait", "newTag": "dev"}],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return render(Path(folder))


def key(manifest: Manifest) -> Key:
    """Kind and name, without the hash of what is in it."""
    return manifest["kind"], HASHED.sub(r"\1", manifest["metadata"]["name"])


def monitoring() -> list[Manifest]:
    """What the component `monitoring` adds to a tree."""
    plain = {key(each) for each in render(KUSTOMIZE / TREES["base"])}
    return [each for each in render(KUSTOMIZE / TREES["media"]) if key(each) not in plain]


def is_pods(manifest: Manifest) -> bool:
    """Whether it makes the service's pods."""
    return manifest["kind"] in ("Deployment", "StatefulSet") and manifest["metadata"]["name"] == "portrait"


def write(folder: Path) -> None:
    """Write the chart."""
    shutil.copytree(HELM, folder, dirs_exist_ok=True)
    for name in ("templates", "files"):
        (folder / name).mkdir(exist_ok=True)
    trees = {exposure: {key(each): each for each in render(KUSTOMIZE / tree)} for exposure, tree in TREES.items()}
    trees["stunner"]["Deployment", "portrait"] = trees["base"]["Deployment", "portrait"]  # without the component `turn`
    base, extra = trees["base"], monitoring()
    keda = {key(each): each for each in render(KUSTOMIZE / "overlays/keda")}
    templates: dict[str, str] = {}
    for name in dict.fromkeys(name for tree in trees.values() for name in tree):
        if name not in {key(each) for each in extra}:
            templates[_file(name)] = _variants({each: tree[name] for each, tree in trees.items() if name in tree})
    scaler = "ScaledObject", "portrait"
    templates[_file(scaler)] = _if('eq .Values.autoscaler "keda"', _text(keda[scaler]))
    for added in render_with("base", "deletion-cost"):
        if key(added) not in base:
            templates[_file(key(added))] = _if(".Values.deletionCost.enabled", _text(added))
    for file, text in templates.items():
        (folder / "templates" / file).write_text(text)
    # Alerts and dashboards have braces of their own: they are read, not taken for templates.
    (folder / "files" / "monitoring.yaml").write_text(yaml.safe_dump_all(extra, sort_keys=False, allow_unicode=True))
    placed = 'replace "namespace: portrait" (print "namespace: " .Release.Namespace)'
    read = f'{{{{ .Files.Get "files/monitoring.yaml" | {placed} }}}}\n'
    (folder / "templates" / "monitoring.yaml").write_text(_if(".Values.monitoring.enabled", read))
    _write_values(folder, base)


def _write_values(folder: Path, base: dict[Key, Manifest]) -> None:
    (container,) = base["Deployment", "portrait"]["spec"]["template"]["spec"]["containers"]
    settings = yaml.safe_dump({"settings": base["ConfigMap", "portrait"]["data"]})
    resources = yaml.safe_dump({"resources": container["resources"]})
    text = (HELM / "values.yaml").read_text()
    text += f"\n# Further settings: docs/reference/settings.md. To change one of these keeps the others.\n{settings}"
    (folder / "values.yaml").write_text(f"{text}\n# Of one pod.\n{resources}")


def _file(name: Key) -> str:
    return f"{name[0].lower()}-{name[1]}.yaml"


def _if(condition: str, text: str) -> str:
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"


def _variants(found: dict[str, Manifest]) -> str:
    """The template of an object that some exposures have, in one form or several."""
    forms: dict[str, list[str]] = {}
    for exposure, manifest in found.items():
        forms.setdefault(_text(manifest), []).append(exposure)
    (kind,) = {manifest["kind"] for manifest in found.values()}
    blocks = []
    for text, exposures in forms.items():
        names = " ".join(f'"{exposure}"' for exposure in exposures)
        conditions = [] if len(exposures) == len(TREES) else [f"has .Values.exposure (list {names})"]
        conditions += {"Namespace": [".Values.namespace.create"]}.get(kind, [])
        conditions += {"HorizontalPodAutoscaler": ['eq .Values.autoscaler "hpa"']}.get(kind, [])
        condition = conditions[0] if len(conditions) == 1 else f"and {' '.join(f'({each})' for each in conditions)}"
        blocks.append(_if(condition, text) if conditions else text)
    return "---\n".join(blocks)


def _text(manifest: Manifest) -> str:
    """One object as a template."""
    chosen = _chosen(manifest)
    if is_pods(manifest):
        return _pods_text(chosen)
    if key(manifest) == ("ConfigMap", "portrait"):
        chosen["data"] = "@@SETTINGS@@"
    return _dump(chosen).replace("data: '@@SETTINGS@@'", "data:\n{{ toYaml .Values.settings | indent 2 }}")


def _dump(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=10_000)
    return text.replace('namespace="portrait"', 'namespace="{{ .Release.Namespace }}"')


def _chosen(value: Any, name: str = "") -> Any:
    """A copy in which what an operator chooses is taken from the values."""
    if isinstance(value, dict):
        is_turn = value.get("name") == "portrait-turn" and name in ("authRef", "secretKeyRef")
        copy = {inner: _chosen(each, inner) for inner, each in value.items()}
        return copy | {"name": "{{ .Values.turn.secretName }}"} if is_turn else copy
    if isinstance(value, list):
        return [_chosen(each, name) for each in value]
    if name == "namespace" and value == "portrait":
        return "{{ .Release.Namespace }}"
    if isinstance(value, str) and name == "name" and (match := HASHED.fullmatch(value)):
        return CONFIG if match[1] == "portrait" else match[1]
    return NAMES.get(value, value) if isinstance(value, str) else value


def _pods_text(pods: Manifest) -> str:
    """The pods' template, with a place for what each component adds."""
    spec = pods["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["env"].append("@@ENV@@")
    container |= {"@@MOUNTS@@": "", "resources": "@@RESOURCES@@"}
    spec["@@VOLUMES@@"] = ""
    parts = {value: _added(component) for value, component in ADDED.items()}
    text = _dump(pods).replace("'@@RESOURCES@@'", "{{ toYaml .Values.resources | nindent 10 }}")
    for mark, title in (("ENV", ""), ("MOUNTS", "volumeMounts:"), ("VOLUMES", "volumes:")):
        (line,) = [line for line in text.splitlines() if f"@@{mark}@@" in line]
        indent = line[: len(line) - len(line.lstrip())]
        blocks = {value: _dump(part[mark]) for value, part in parts.items() if part[mark]}
        filled = "".join(
            _if(f".Values.{value}.enabled", re.sub("^", indent, block.rstrip(), flags=re.MULTILINE) + "\n")
            for value, block in blocks.items()
        )
        if title:
            filled = _if(f"or {' '.join(f'.Values.{value}.enabled' for value in blocks)}", f"{indent}{title}\n{filled}")
        text = text.replace(f"{line}\n", filled)
    return text


def _added(component: str) -> dict[str, Any]:
    """What a component adds to the pod."""
    patch = _chosen(yaml.safe_load((KUSTOMIZE / "components" / component / "patch.yaml").read_text()))
    spec = patch["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return {"ENV": container["env"], "MOUNTS": container.get("volumeMounts"), "VOLUMES": spec.get("volumes")}


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "helm" / "portrait")
