"""YAML attributes derived from the package's own settings classes, so that no option is declared twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from dagster import EnvVar, Model, ResolutionContext, Resolver
from pydantic import BaseModel, Field, TypeAdapter, create_model

Made = TypeVar("Made")

_TEMPLATE = re.compile(r"\{\{|\{%")
_FROM_ENVIRONMENT = re.compile(r"\{\{\s*env(?:\.(\w+)|\(\s*['\"](\w+)['\"]\s*\))\s*\}\}")
_NO_DEFAULT = (int, float, str, bool)


@dataclass(frozen=True)
class _Option:
    """One field of a settings class: its type, its default where JSON has one, and what it is for."""

    type: Any
    default: Any
    description: str | None


def attribute_model(
    owner: type, *, without: Collection[str] = (), replaced: Mapping[str, Any] | None = None
) -> type[BaseModel]:
    """The model of a YAML mapping that has the fields of ``owner``, a dataclass or a Dagster resource.

    Every field is optional and takes a template.

    Args:
        owner: Whose fields.
        without: Names of fields that YAML does not have.
        replaced: Types for fields whose own is not one of YAML.
    """
    types = replaced or {}
    made: dict[str, Any] = {}
    for name, option in _options(owner).items():
        if name not in without:
            made[name] = (
                types.get(name, option.type) | str,
                Field(default=option.default, description=option.description),
            )
    return create_model(f"{owner.__name__}Attributes", __base__=Model, **made)


def _options(owner: Any) -> dict[str, _Option]:
    if issubclass(owner, BaseModel):
        return {
            name: _Option(field.annotation, _scalar(field.default), field.description)
            for name, field in owner.model_fields.items()
        }
    types = get_type_hints(owner)
    told = _told(owner.__doc__ or "")
    return {
        field.name: _Option(types[field.name], _scalar(field.default), told.get(field.name))
        for field in fields(owner)
    }


def _scalar(default: Any) -> Any:
    return default if default is not MISSING and isinstance(default, _NO_DEFAULT) else None


def _told(docstring: str) -> dict[str, str]:
    """What a class's docstring says of each of its arguments."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n\s*\n", section)[0]
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def resolver_of(
    model: type[BaseModel],
    build: Callable[[dict[str, Any]], Any],
    description: str,
    *,
    secrets: Collection[str] = (),
) -> Resolver:
    """The resolver of an attribute: what is said in YAML, templates filled in, through ``build``.

    Args:
        model: What the attribute looks like.
        build: Gets what was said and nothing else.
        description: What the attribute is for.
        secrets: Fields in which ``{{ env.NAME }}`` stays a reference, so that Dagster's UI shows the name
            of the variable alone.
    """

    def resolve(context: ResolutionContext, said: Any) -> Any:
        if not isinstance(said, model):  # a template gave the thing itself
            return said
        given = said.model_dump(exclude_unset=True)
        return build(
            {
                name: rendered(context.at_path(name), value, keep=name in secrets)
                for name, value in given.items()
            }
        )

    return Resolver(resolve, model_field_type=model, description=description)


def rendered(context: ResolutionContext, value: Any, keep: bool = False) -> Any:
    """A value with its templates filled in; text without one stays as it is, also where it looks like a number.

    Args:
        context: Where the templates' names come from.
        value: What YAML says.
        keep: Leave ``{{ env.NAME }}`` a reference to the variable.
    """
    if isinstance(value, Mapping):
        return {name: rendered(context.at_path(name), item, keep) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rendered(context.at_path(place), item, keep) for place, item in enumerate(value)]
    if not isinstance(value, str) or not _TEMPLATE.search(value):
        return value
    variable = _FROM_ENVIRONMENT.fullmatch(value.strip())
    if keep and variable:
        return EnvVar(variable.group(1) or variable.group(2))
    return context.resolve_value(value)


def dataclass_from(owner: type[Made]) -> Callable[[dict[str, Any]], Made]:
    """Makes an ``owner`` from what was said, with its types checked."""
    adapter: TypeAdapter[Made] = TypeAdapter(owner)
    return adapter.validate_python
