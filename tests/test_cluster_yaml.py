"""The cluster file passes the checks that Ray ships, and keeps its own promises."""

import copy
from pathlib import Path

import pytest
import yaml

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "cluster.yaml").read_text())


def ray_accepts(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_the_file():
    ray_accepts(CONFIG)


def test_the_check_finds_a_typo():
    with pytest.raises(Exception, match="max_workerz"):
        ray_accepts(CONFIG | {"max_workerz": 3})


def test_the_head_does_no_work():
    assert CONFIG["available_node_types"][CONFIG["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}


def test_gpu_workers_are_spot_and_go_when_idle():
    gpu = CONFIG["available_node_types"]["gpu_worker"]
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert CONFIG["idle_timeout_minutes"] <= 10


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_with_a_token_and_spills_to_the_data_disk(commands):
    start = CONFIG[commands][-1]
    assert "RAY_AUTH_MODE=token" in start
    assert "--object-spilling-directory=/mnt/spill" in start


def test_the_dashboard_listens_on_loopback():
    assert "--dashboard-host=127.0.0.1" in CONFIG["head_start_ray_commands"][-1]
