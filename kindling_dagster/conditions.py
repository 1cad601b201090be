"""Automation conditions by name, as tags and settings give them, and freshness policies from ages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from dagster import AssetKey, AssetSelection, AutomationCondition, FreshnessPolicy

from kindling_dagster.errors import DeclarationError

AUTOMATION_TAG = "dagster/automation"
NAMES = ("eager", "on_cron <cron>", "on_missing", "on_dimension_change", "none")
"""What the tag may say."""

_LEAST = timedelta(minutes=1)  # Dagster's


def condition_of(said: str, where: str, dimensions: Sequence[AssetKey]) -> AutomationCondition[Any] | None:
    """The condition behind a name; None for ``none`` and for no name.

    ``on_dimension_change`` holds when an input that does not drive the asset's pipes has changed.

    Args:
        said: One of ``NAMES``.
        where: Named in errors.
        dimensions: Keys of those inputs.

    Raises:
        DeclarationError: There is no such condition.
    """
    name, _, rest = said.strip().partition(" ")
    try:
        match name.lower(), rest.strip():
            case (("" | "none"), ""):
                return None
            case "eager", "":
                return AutomationCondition.eager()
            case "on_missing", "":
                return AutomationCondition.on_missing()
            case "on_cron", cron if cron:
                return AutomationCondition.on_cron(cron)
            case "on_dimension_change", "":
                return _on_dimension_change(dimensions)
    except Exception as error:  # of several kinds, for a cron schedule that is none
        raise DeclarationError(f"{where} is {said!r}: {error}", _ADVICE) from error
    raise DeclarationError(f"{where} is {said!r}.", _ADVICE)


_ADVICE = f"Use one of {', '.join(NAMES)}, such as `on_cron 0 6 * * *`."


def _on_dimension_change(dimensions: Sequence[AssetKey]) -> AutomationCondition[Any] | None:
    if not dimensions:
        return None
    changed = AutomationCondition.any_deps_match(
        AutomationCondition.newly_updated() | AutomationCondition.will_be_requested()
    ).allow(AssetSelection.assets(*dimensions))
    condition = (
        AutomationCondition.in_latest_time_window()
        & changed.since(AutomationCondition.newly_requested() | AutomationCondition.newly_updated())
        & ~AutomationCondition.any_deps_missing()
        & ~AutomationCondition.any_deps_in_progress()
        & ~AutomationCondition.in_progress()
    )
    return condition.with_label("on_dimension_change")


def freshness_of(age: timedelta, where: str) -> FreshnessPolicy:
    """The policy that fails when the last materialization is older.

    Raises:
        DeclarationError: The age is less than Dagster looks at.
    """
    if age < _LEAST:
        raise DeclarationError(f"{where} is less than a minute.", "Give a minute or more.")
    return FreshnessPolicy.time_window(fail_window=age)
