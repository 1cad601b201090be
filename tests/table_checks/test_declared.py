"""Which checks an entity gets, as a table: by its declaration, its tags, the app's settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from manifests import entity, manifest, pipe

from kindling_dagster.errors import DeclarationError
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.table_checks.declared import (
    CheckSettings,
    DeclaredChecks,
    TableCheck,
    checks_in_step,
    parse_age,
    spell_age,
)

SCHEMA = ({"name": "id", "type": "long", "nullable": False, "metadata": {}},)
KEYED: dict[str, Any] = {"merge_columns": ("id",), "schema": SCHEMA}
KEYS = ["merge_keys_not_null", "merge_keys_unique"]


def app(settings: dict[str, Any] | None = None, **declared: Any) -> Manifest:
    """An app in which a pipe writes silver.orders, declared so, from raw.orders."""
    return manifest(
        pipe("clean", "raw.orders", "silver.orders"),
        entities=(entity("silver.orders", **declared),),
        settings=settings or {},
    )


def names(found: tuple[TableCheck, ...]) -> list[str]:
    return [check.name for check in found]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, []),
        (KEYED, [*KEYS, "schema_drift"]),
        ({**KEYED, "schema": None}, KEYS),
        ({**KEYED, "scd2": True}, ["merge_keys_not_null", "scd2_history", "schema_drift"]),
        ({**KEYED, "kind": "derived"}, [*KEYS, "schema_drift"]),
        ({**KEYED, "tags": {"write.mode": "append"}}, ["merge_keys_not_null", "schema_drift"]),
        ({**KEYED, "tags": {"write.mode": "insert"}}, [*KEYS, "schema_drift"]),
        ({**KEYED, "provider": "parquet"}, []),
        ({**KEYED, "location": Location("memory")}, []),
        ({**KEYED, "location": Location("table", "silver.orders")}, [*KEYS, "schema_drift"]),
        ({**KEYED, "companion_of": "silver.base"}, []),
        ({**KEYED, "tags": {"dagster/checks": "false"}}, []),
        ({**KEYED, "tags": {"dagster/checks": "none"}}, []),
        ({**KEYED, "tags": {"dagster/checks": "schema_drift"}}, ["schema_drift"]),
        # A limit is for those that no pipe writes.
        ({"tags": {"dagster/max_age": "1d"}}, []),
    ],
)
def test_what_a_declaration_gives(declared: dict[str, Any], expected: list[str]) -> None:
    assert names(DeclaredChecks(app(**declared)).of("silver.orders")) == expected


@pytest.mark.parametrize(
    ("settings", "tags", "enabled", "blocking"),
    [
        ({}, {}, [*KEYS, "schema_drift"], []),
        ({"enabled": False}, {}, [], []),
        ({"enabled": "false"}, {"dagster/checks": "true"}, [*KEYS, "schema_drift"], []),
        ({"enabled": ["merge_keys_unique"]}, {}, ["merge_keys_unique"], []),
        ({"blocking": True}, {}, [*KEYS, "schema_drift"], [*KEYS, "schema_drift"]),
        ({"blocking": "merge_keys_unique, scd2_history"}, {}, [*KEYS, "schema_drift"], ["merge_keys_unique"]),
        ({"blocking": True}, {"dagster/blocking_checks": "false"}, [*KEYS, "schema_drift"], []),
        ({}, {"dagster/blocking_checks": "schema_drift"}, [*KEYS, "schema_drift"], ["schema_drift"]),
    ],
)
def test_settings_and_tags(
    settings: dict[str, Any], tags: dict[str, str], enabled: list[str], blocking: list[str]
) -> None:
    dotted = {f"kindling.dagster.checks.{name}": value for name, value in settings.items()}
    found = DeclaredChecks(app(dotted, **KEYED, tags=tags)).of("silver.orders")
    assert (names(found), names(tuple(check for check in found if check.blocking))) == (enabled, blocking)


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        ({}, {}, None),
        ({}, {"tags": {"dagster/max_age": "90m"}}, timedelta(minutes=90)),
        ({"kindling.dagster.checks.max_age": 26}, {}, timedelta(hours=26)),
        ({"kindling.dagster.checks.max_age": "2d"}, {"tags": {"dagster/max_age": "1w"}}, timedelta(weeks=1)),
        ({"kindling.dagster.checks.max_age": "2d"}, {"provider": "eventhub"}, None),
        ({"kindling.dagster.checks.max_age": "2d"}, {"provider": "csv"}, timedelta(days=2)),
    ],
)
def test_how_old_a_source_may_be(
    settings: dict[str, Any], changes: dict[str, Any], expected: timedelta | None
) -> None:
    made = manifest(
        pipe("clean", "raw.orders", "silver.orders"),
        entities=(entity("raw.orders", **changes),),
        settings=settings,
    )
    assert [check.max_age for check in DeclaredChecks(made).of("raw.orders")] == (
        [] if expected is None else [expected]
    )


@pytest.mark.parametrize(
    ("settings", "tags", "message"),
    [
        ({"enabled": "keys"}, {}, r"kindling\.dagster\.checks\.enabled names keys"),
        ({"max_age": "soon"}, {}, r"kindling\.dagster\.checks\.max_age is 'soon'"),
        ({"examples": "many"}, {}, r"kindling\.dagster\.checks\.examples is 'many'"),
        (
            {},
            {"dagster/blocking_checks": "keys"},
            r"dagster/blocking_checks of entity silver\.orders names keys",
        ),
        (
            {},
            {"dagster/checks": "scd2_history"},
            r"asks for scd2_history, which its declaration gives nothing",
        ),
    ],
)
def test_what_cannot_be_is_said(settings: dict[str, Any], tags: dict[str, str], message: str) -> None:
    dotted = {f"kindling.dagster.checks.{name}": value for name, value in settings.items()}
    with pytest.raises(DeclarationError, match=message):
        DeclaredChecks(app(dotted, **KEYED, tags=tags)).of("silver.orders")


@pytest.mark.parametrize(
    ("text", "hours"), [("26h", 26), ("26", 26), (26, 26), ("1.5d", 36), ("30M", 0.5), (" 2 w ", 336)]
)
def test_ages(text: object, hours: float) -> None:
    assert parse_age(text, "it") == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "h", "-1h", "0h", "1 year", "1h30m"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(DeclarationError, match="it is"):
        parse_age(text, "it")


@pytest.mark.parametrize(
    ("hours", "text"), [(0.01, "36 s"), (1, "60 min"), (26, "26 h"), (72, "3 d"), (1000, "41.7 d")]
)
def test_ages_for_people(hours: float, text: str) -> None:
    assert spell_age(timedelta(hours=hours)) == text


def test_settings_have_defaults() -> None:
    assert CheckSettings.from_settings({}) == CheckSettings()
    assert CheckSettings.from_settings({"kindling.dagster.checks.examples": 0}).examples == 0


@pytest.mark.parametrize(
    ("location", "everything", "options", "expected"),
    [
        (Location("path", "lake/orders"), True, False, {"merge_keys_unique": True}),
        (Location("path", "s3://lake/orders"), True, True, {"merge_keys_unique": True}),
        (Location("path", "s3://lake/orders"), False, False, {"merge_keys_unique": True}),
        (Location("path", "s3://lake/orders"), True, False, "all"),
        (Location("table", "lake.orders"), True, True, "all"),
    ],
)
def test_what_the_step_checks_itself(
    location: Location, everything: bool, options: bool, expected: dict[str, bool] | str
) -> None:
    made = app(**KEYED, location=location)
    found = checks_in_step(
        made,
        ["silver.orders", "raw.orders"],
        {"silver.orders": ["merge_keys_unique"]},
        everything=everything,
        storage_options=options,
    )
    if expected == "all":
        expected = {"merge_keys_not_null": False, "merge_keys_unique": True, "schema_drift": False}
    assert found == {"silver.orders": expected}
