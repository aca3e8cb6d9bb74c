from __future__ import annotations

import time

from support.metrics_page import untold

from odtrain.tracking.system_metrics import MachineMetrics


def test_steps_count_intervals_since_the_run_was_first_started():
    logged: list[tuple[dict[str, float], int]] = []
    an_hour_ago = round((time.time() - 3600) * 1000)
    sampler = MachineMetrics(lambda metrics, step: logged.append((metrics, step)), an_hour_ago, 0.2)
    sampler.start()
    time.sleep(0.7)
    sampler.stop()
    steps = [step for _, step in logged]
    assert 18000 <= steps[0] <= 18010
    assert steps == sorted(set(steps))
    assert set(logged[0][0]) == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
        "system/disk_usage_megabytes",
        "system/disk_available_megabytes",
        "system/network_receive_megabytes",
        "system/network_transmit_megabytes",
    }
    assert untold(logged[0][0]) == []


def test_a_machine_without_network_logs_the_rest(monkeypatch):
    monkeypatch.setattr("odtrain.tracking.system_metrics.psutil.net_io_counters", lambda: None)
    logged: list[dict[str, float]] = []
    sampler = MachineMetrics(lambda metrics, step: logged.append(metrics), 0, 0.05)
    sampler.start()
    time.sleep(0.3)
    sampler.stop()
    assert "system/cpu_utilization_percentage" in logged[0]
    assert "system/network_receive_megabytes" not in logged[0]


def test_a_sampler_that_was_never_started_can_be_stopped():
    MachineMetrics(lambda metrics, step: None, 0, 10.0).stop()
