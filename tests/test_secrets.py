"""References to secrets are found; values are turned back into references."""

from __future__ import annotations

import pytest

from kindling_dagster.manifest import SecretRef
from kindling_dagster.secrets import SecretBook, environment_names, find_secret


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("@secret:KEY", "KEY"),
        ("@secret my-key", "my-key"),
        ("@secret:scope:key.one", "scope:key.one"),
        ("abfss://{@secret:ACCOUNT}/x", "ACCOUNT"),
        ("no secret: here", ""),
        (None, ""),
    ],
)
def test_find_secret(text: str | None, key: str) -> None:
    assert find_secret(text) == key


@pytest.mark.parametrize("key", ["API_TOKEN", "lake-path", "scope:key.one", "KINDLING_SECRET_X"])
def test_kindling_looks_where_we_say(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kindling.platform_standalone import StandaloneService

    for name in environment_names(key):
        with monkeypatch.context() as patch:
            patch.setenv(name, "found")
            assert StandaloneService.get_secret(None, key) == "found"


def test_references_by_place() -> None:
    book = SecretBook()
    book.note({"a": {"b": "@secret:ONE", "c": ["x", "@format {@secret:TWO}"]}})
    book.note({"provider.path": "@secret THREE"}, "silver.a.tags")
    assert book.references() == (
        SecretRef("ONE", "a.b"),
        SecretRef("TWO", "a.c[1]"),
        SecretRef("THREE", "silver.a.tags.provider.path"),
    )


def test_values_become_references_where_one_stood_and_anywhere_when_long() -> None:
    book = SecretBook({"true": "FLAG", "long-secret-value": "TOKEN"})
    book.note({"entity_tags": {"a.b": {"provider.header": "@secret:FLAG"}}})
    assert book.unresolved("provider.header", "true", "") == "@secret:FLAG"
    assert book.unresolved("provider.other", "true", "") == "true"
    assert book.unresolved("provider.other", "true", "@secret FLAG") == "@secret FLAG"
    assert book.unresolved("x", "abfss://long-secret-value@y", "") == "abfss://@secret:TOKEN@y"
    assert book.holds(["x", "long-secret-value"])
    assert book.holds("@secret:ANY")
    assert not book.holds({"a": 1})


def test_a_place_is_masked_however_storage_clients_write_it() -> None:
    book = SecretBook(
        {"/lake/hidden/orders": "LOCAL", "s3://bucket/hidden": "REMOTE", "hunter2/": "PASSWORD"}
    )
    told = "Object at location lake/hidden/orders/part-0 (file:/lake/hidden/orders), bucket/hidden/part-1"
    assert (
        book.mask(told)
        == "Object at location @secret:LOCAL/part-0 (file:@secret:LOCAL), @secret:REMOTE/part-1"
    )
