"""Settings from the context."""

from __future__ import annotations

import pytest

from infra.config import Bundling, Config, ConfigError, RetentionMode
from infra.specs import specs


def test_defaults_are_safe() -> None:
    config = Config.from_context({})
    assert config.vpc_isolation
    assert config.deletion_protection
    assert config.reserved_concurrency
    assert config.retention_mode is RetentionMode.GOVERNANCE
    assert config.retention_days == 365
    assert config.log_retention_days == 365
    assert config.data_buckets == ()


def test_text_of_the_command_line_and_values_of_a_file_mean_the_same() -> None:
    text = Config.from_context(
        {
            "attestry:vpcIsolation": "false",
            "attestry:retentionDays": "30",
            "attestry:retentionMode": "COMPLIANCE",
            "attestry:dataBuckets": "aa-b, cc-d",
        }
    )
    values = Config.from_context(
        {
            "attestry:vpcIsolation": False,
            "attestry:retentionDays": 30,
            "attestry:retentionMode": "COMPLIANCE",
            "attestry:dataBuckets": ["aa-b", "cc-d"],
        }
    )
    assert (
        text
        == values
        == Config(vpc_isolation=False, retention_days=30, retention_mode=RetentionMode.COMPLIANCE, data_buckets=("aa-b", "cc-d"))
    )


@pytest.mark.parametrize(
    "value", ["predict=2048, evaluate=6144", '{"predict": 2048, "evaluate": 6144}', {"evaluate": 6144, "predict": "2048"}]
)
def test_memory_of_any_function_can_be_set(value: object) -> None:
    config = Config.from_context({"attestry:functionMemoryMib": value})
    table, defaults = specs(config), specs(Config())
    assert (table["predict"].memory_mib, table["evaluate"].memory_mib) == (2048, 6144)
    assert all(table[name] == spec for name, spec in defaults.items() if name not in ("predict", "evaluate"))


@pytest.mark.parametrize("name", ["predikt", "sandbox", "inference"])
def test_memory_is_refused_for_a_function_that_is_not_there_or_has_its_own_setting(name: str) -> None:
    with pytest.raises(ConfigError, match=f"attestry:functionMemoryMib: '{name}'"):
        specs(Config(function_memory_mib=((name, 1024),)))


def test_keys_of_others_are_left_alone() -> None:
    assert Config.from_context({"@aws-cdk/core:flag": True, "attestry:bundling": "source"}) == Config(bundling=Bundling.SOURCE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vpcIsolaton", "true"),
        ("vpcIsolation", "yes"),
        ("retentionDays", "0"),
        ("retentionDays", "-1"),
        ("retentionDays", True),
        ("retentionMode", "NONE"),
        ("logRetentionDays", "31"),
        ("prefix", "Attestry"),
        ("prefix", "a" * 21),
        ("alarmAddress", "somebody"),
        ("sandboxMemoryMib", "64"),
        ("approvalTimeoutDays", "365"),
        ("trustedAccount", "1234"),
        ("trustedAccount", "123456789012,210987654321"),
        ("folderNaming", "owner"),
        ("dataBuckets", "UPPER"),
        ("dataBuckets", 5),
        ("bundling", "docker"),
        ("prefix", 5),
        ("functionMemoryMib", "predict"),
        ("functionMemoryMib", "predict=64"),
        ("functionMemoryMib", {"predict": 1.5}),
        ("functionMemoryMib", "{"),
        ("functionMemoryMib", 1024),
        ("dataBuckets", "["),
        ("vpcCidr", "10.90.0.0"),
        ("vpcCidr", "10.90.0.1/16"),
        ("vpcCidr", "10.90.0.0/24"),
        ("vpcCidr", "8.8.0.0/16"),
        ("vpcCidr", "fd00::/16"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"attestry:{key}"):
        Config.from_context({f"attestry:{key}": value})


def test_the_folder_namings_are_those_that_the_registry_knows() -> None:
    from attestry.domain.names import FolderNaming as Registry
    from infra.config import FolderNaming

    assert {n.value for n in FolderNaming} == {n.value for n in Registry}
