"""deploy/kubernetes: objects that Kubernetes takes, commands that odtrain takes, workers that meet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from odtrain.cli.parse import parse
from odtrain.config.compose import compose_config
from odtrain.training.team import _of_tf_config
from odtrain_runtime.__main__ import _parser

FOLDER = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
OBJECTS = [
    pytest.param(each, id=f"{file.stem}-{each['kind']}-{each['metadata']['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
WITH_PODS = [each for each in OBJECTS if "template" in each.values[0].get("spec", {})]
VERSIONS = ("1.28", "1.31", "1.34")


def pod_of(thing: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = thing["spec"]["template"]["spec"]
    return spec


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_there_is_all_that_a_team_needs():
    names = {file.stem for file in FOLDER.glob("*.yaml")}
    assert names == {"train", "sweep", "mlflow", "serve"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("thing", OBJECTS)
def test_kubernetes_takes_it(thing, version):
    kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("thing", WITH_PODS)
def test_its_pods_run_without_rights(thing):
    pod = pod_of(thing)
    assert pod["securityContext"]["runAsNonRoot"] is True
    for one in containers(pod):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("thing", WITH_PODS)
def test_no_secret_stands_in_it(thing):
    """Passwords and tokens come from Secrets alone."""
    for one in containers(pod_of(thing)):
        for variable in one.get("env", ()):
            if re.search("PASSWORD|TOKEN", variable["name"]):
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
        assert not re.search(r"://[^/@ ]*:[^/@ ]*@", yaml.safe_dump(one))


@pytest.mark.parametrize("thing", WITH_PODS)
def test_every_volume_that_is_mounted_is_there(thing):
    pod = pod_of(thing)
    claims = thing["spec"].get("volumeClaimTemplates", ())
    there = {one["name"] for one in pod.get("volumes", ())} | {
        one["metadata"]["name"] for one in claims
    }
    mounted = {one["name"] for each in containers(pod) for one in each.get("volumeMounts", ())}
    assert mounted <= there


@pytest.mark.parametrize("thing", WITH_PODS)
def test_its_commands_are_understood(thing):
    for one in containers(pod_of(thing)):
        if one["image"] in ("odtrain", "odtrain-gpu"):
            invocation = parse(one["args"]).invocation()
            compose_config(invocation.overrides)
        elif one["image"] == "odtrain-serve":
            _parser().parse_args(one["args"])


def expanded(container: dict[str, Any], worker: int) -> dict[str, str]:
    """A container's variables, as Kubernetes gives them: $(NAME) is what stands before it."""
    found: dict[str, str] = {}
    for variable in container["env"]:
        text = variable.get("value", str(worker))  # of fieldRef
        for name, known in found.items():
            text = text.replace(f"$({name})", known)
        found[variable["name"]] = text
    return found


def test_the_workers_of_a_training_find_each_other():
    service, job = (each for each in yaml.safe_load_all((FOLDER / "train.yaml").read_text()))
    name, subdomain = job["metadata"]["name"], pod_of(job)["subdomain"]
    assert service["metadata"]["name"] == subdomain
    assert service["spec"]["selector"] == {"job-name": name}
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    port = service["spec"]["ports"][0]["port"]
    hosts = [f"{name}-{each}.{subdomain}:{port}" for each in range(job["spec"]["completions"])]
    for worker in range(len(hosts)):
        cluster = _of_tf_config(expanded(pod_of(job)["containers"][0], worker)["TF_CONFIG"])
        assert cluster is not None
        assert (cluster.spec, cluster.job, cluster.index) == ({"worker": hosts}, "worker", worker)
    json.loads(expanded(pod_of(job)["containers"][0], 0)["TF_CONFIG"])


def test_servers_are_called_by_the_names_of_their_services():
    """What clients write as an address is a Service, and MLflow's server knows itself by it."""
    things = [each.values[0] for each in OBJECTS]
    services = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"]
        for each in things
        if each["kind"] == "Service"
    }
    text = "\n".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.yaml"))
    for host, port in re.findall(r"http://([a-z-]+):(\d+)", text):
        assert services[host] == int(port)
    for host in re.findall(r"postgresql\+psycopg2://odtrain@([a-z-]+)/", text):
        assert services[host] == 5432
    (server,) = (
        one
        for each in things
        if each["metadata"]["name"] == "mlflow" and each["kind"] == "StatefulSet"
        for one in containers(pod_of(each))
    )
    assert "--allowed-hosts=mlflow,mlflow:5000" in server["args"]
