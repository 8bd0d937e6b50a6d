"""What is ready to schedule: the files parse, name commands that exist, and pass the schemas at hand."""

from __future__ import annotations

import copy
import importlib
import shlex
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"
FILES = {path.name: yaml.safe_load(path.read_text()) for path in DEPLOY.glob("*.yaml")}
RAY_JOB, CRON_JOB, GCP = FILES["rayjob.yaml"], FILES["cronjob.yaml"], FILES["gcp.yaml"]

# Of KubeRay's types RayJobSpec and RayClusterSpec, what is used here.
JOB_FIELDS = {
    *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
}
CLUSTER_FIELDS = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
    *("headGroupSpec", "workerGroupSpecs"),
}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def commands():
    crontab = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line[:1] not in {"#", ""}]
    yield crontab[0].split(maxsplit=5)[5].partition("&&")[2].partition(">>")[0]
    yield RAY_JOB["spec"]["entrypoint"]
    container = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    yield shlex.join(container["command"]).partition("-- ")[2]


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_one_that_the_job_takes(command):
    words = shlex.split(command)
    assert words[1:3] == ["-m", "jobs.archive"]
    module = importlib.import_module(words[2])
    context = module.update_archive.make_context("archive", words[3:])
    assert context.params["output"] == "/mnt/transcripts"


def test_ray_accepts_the_cluster_on_google_cloud():
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(GCP)))
    gpu = GCP["available_node_types"]["gpu_worker"]
    assert (gpu["min_workers"], gpu["node_config"]["scheduling"]["provisioningModel"]) == (0, "SPOT")
    assert GCP["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "--dashboard-host=127.0.0.1" in GCP["head_start_ray_commands"][-1]


def test_the_ray_jobs_use_fields_that_kuberay_has():
    spec = RAY_JOB["spec"]
    assert set(spec) <= JOB_FIELDS
    assert set(spec["rayClusterSpec"]) <= CLUSTER_FIELDS
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    assert all(set(group) <= GROUP_FIELDS for group in groups)
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert groups[0]["rayStartParams"] == {"num-cpus": "0"}


def test_the_scheduled_ray_job_is_the_ray_job():
    cron = FILES["raycronjob.yaml"]
    assert set(cron["spec"]) == {"schedule", "jobTemplate"}
    assert cron["spec"]["jobTemplate"] == RAY_JOB["spec"]
    assert (DEPLOY / "raycronjob.yaml").read_text().startswith("# ALPHA")


def pods():
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}


@pytest.mark.parametrize("resource", [CRON_JOB, *pods()], ids=lambda resource: resource["kind"])
def test_kubernetes_own_schema_accepts_what_is_its_own(resource):
    validator = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, with its 100 MB of schemas, is not installed"
    )
    validator.validate(resource, "1.34", strict=True)
