"""How many workers there are when nobody says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gateway.configuration import load_settings
from gateway.workers.count import available_cores, count_workers

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.settings import Settings

CORES = len(os.sched_getaffinity(0))


def settings(**sections: object) -> Settings:
    return load_settings(None, {"tenants": {"acme": {"client_id": "a", "client_secret": "b"}}, **sections})


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, CORES),
        ({"pod/box/cpu.max": "max 100000\n"}, CORES),
        ({"pod/box/cpu.max": "100000 100000\n"}, 1),
        ({"pod/box/cpu.max": "20000 100000\n"}, 1),
        ({"pod/box/cpu.max": "120000 100000\n"}, min(CORES, 2)),
        ({"pod/box/cpu.max": "9000000 100000\n"}, CORES),
        ({"pod/cpu.max": "50000 100000\n", "pod/box/cpu.max": "max 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
    ],
)
def test_a_core_each_or_as_many_as_the_control_group_has_time_for(
    tmp_path: Path, quotas: dict[str, str], cores: int
) -> None:
    (tmp_path / "self").write_text("0::/pod/box\n")
    for name, quota in quotas.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(quota)

    assert available_cores(tmp_path / "groups", tmp_path / "self") == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", CORES), ("50000", 1), ("100000", 1)])
def test_control_groups_of_the_first_version(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "self").write_text("4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n")
    (tmp_path / "cpu" / "box").mkdir(parents=True)
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")

    assert available_cores(tmp_path, tmp_path / "self") == cores


def test_without_control_groups_it_is_the_cores_that_it_may_run_on(tmp_path: Path) -> None:
    assert available_cores(tmp_path, tmp_path / "nowhere") == CORES


def test_a_worker_for_each_core_unless_told() -> None:
    assert count_workers(settings()) == (available_cores(), None)
    assert count_workers(settings(workers=3)) == (3, None)


def test_one_with_memory_that_they_cannot_share_and_why() -> None:
    count, reason = count_workers(settings(cache={"backend": "memory"}))

    assert count == 1
    assert (reason is None) == (available_cores() == 1)
