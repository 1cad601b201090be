"""The translator of a component: the app's default look, then what the YAML's ``translation`` says."""

from __future__ import annotations

from typing import Protocol

from dagster import AssetKey, AssetSpec

from kindling_dagster.translator import AssetData, DagsterKindlingTranslator, TranslatorSettings


class Translates(Protocol):
    """What decides an asset's spec; the component does."""

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        """The spec of one asset."""
        ...


class ComponentTranslator(DagsterKindlingTranslator):
    """Asks a component for each asset's spec; keys are those of these specs.

    Args:
        component: Who is asked.
        settings: For the default that the component begins with.
    """

    def __init__(self, component: Translates, settings: TranslatorSettings) -> None:
        super().__init__(settings)
        self._component = component
        self._keys: dict[str, AssetKey] = {}

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        """The component's spec."""
        return self._component.get_asset_spec(data)

    def get_asset_key(self, data: AssetData) -> AssetKey:
        """The key of the component's spec, asked for once."""
        if data.entity.id not in self._keys:
            self._keys[data.entity.id] = self._component.get_asset_spec(data).key
        return self._keys[data.entity.id]
