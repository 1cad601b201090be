"""Writes docs/signals_reference.md: ``python -m kindling_dagster.signals.reference [PATH] [--check]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from kindling_dagster.signals.catalog import SignalSpec, get_all_signals
from kindling_dagster.signals.naming import EXCEPTIONS

DEFAULT_PATH: Final = Path("docs") / "signals_reference.md"

_INTRODUCTION: Final = """# Signals reference

<!-- Written by `python -m kindling_dagster.signals.reference`; change the catalog or the payloads, not this file. -->

Every signal that Kindling and kindling-dagster emit: when it is sent, what it carries, and what it becomes
in Dagster. `kindling-dagster signals list` and `signals show NAME` print the same. [signals.md](signals.md)
tells how signals travel, how to change what becomes of them, and how to receive them in another process.

## How to subscribe

```python
from kindling.injection import get_kindling_service
from kindling.signaling import SignalProvider
from kindling_dagster.signals.payloads import decode


def on_commit(sender, **kwargs):
    payload = decode("persist.after_persist", kwargs)  # a PersistPayload; never raises, holds no frame
    print(payload.pipe_id, payload.output_entity_id, payload.duration_seconds)


signal = get_kindling_service(SignalProvider).create_signal("persist.after_persist")
signal.connect(on_commit, weak=False)
```

A subscriber takes `**kwargs`: later versions may send more. Every payload also has `timestamp` (Unix seconds)
and, where the emitter links signals, `operation_id`. Fields marked *optional* are sent only when there is
something to say. Live objects (`df`, `entity`, `pipe`) reach a subscriber as they are; a decoded payload holds
their description. Secrets are masked in decoded payloads and in their JSON form.

## How signals are emitted

Classes of kindling-dagster emit through `AsyncSignalEmitter`. A subscriber that raises breaks neither the emitter
nor the other subscribers; it is logged, counted, and reported as `signals.subscriber_failed`. (Kindling's own
emitters let the exception through.) Settings of the app, all optional:

| Setting | Values | |
|---|---|---|
| `kindling.signals.async` | `true`, `false`, patterns | which signals are delivered by other threads, in order per signal; \
`["streaming.*", "!streaming.query_failed"]`: the last that fits counts |
| `kindling.signals.backpressure` | `block`, `drop_oldest` | when `capacity` signals of one name wait: wait for \
space, or drop the oldest and count it |
| `kindling.signals.capacity` | 1000 | waiting signals per name |
| `kindling.signals.max_workers` | 4 | threads that call subscribers |
| `kindling.signals.stall_after` | 30 | seconds without progress after which `block` waits no longer: the \
subscriber hangs |
| `kindling.signals.naming` | `off`, `warn`, `strict` | see below |
| `kindling.signals.allowed_names` | patterns | names that may break the rule |

## Names

`namespace.before_x` and `namespace.after_x` around something that takes time, `namespace.x_failed` when it did
not come to its end, `namespace.x_changed` when something is not what it was, else a past-tense state. Names are
checked when a class declares them in `EMITS` and when they are emitted (`kindling.signals.naming`: `off`, `warn`
or `strict`). These keep their names although they break the rule:

| Signal | Why |
|---|---|
"""


def render(specs: Iterable[SignalSpec] | None = None) -> str:
    """The whole reference as Markdown."""
    chosen = list(get_all_signals().values() if specs is None else specs)
    lines = [f"| `{name}` | {reason} |" for name, reason in sorted(EXCEPTIONS.items())]
    parts = [_INTRODUCTION + "\n".join(lines)]
    namespaces = list(dict.fromkeys(spec.namespace for spec in chosen))
    parts.append("## All signals\n\n" + "\n".join(_index(namespaces, chosen)))
    for namespace in namespaces:
        parts.append(f"## {namespace}")
        parts.extend(_section(spec) for spec in chosen if spec.namespace == namespace)
    return "\n\n".join(parts) + "\n"


def _index(namespaces: Sequence[str], specs: Sequence[SignalSpec]) -> Iterable[str]:
    yield "| Namespace | Signals |"
    yield "|---|---|"
    for namespace in namespaces:
        names = [
            f"[{spec.name.rpartition('.')[2]}](#{spec.name.replace('.', '')})"
            for spec in specs
            if spec.namespace == namespace
        ]
        yield f"| [{namespace}](#{namespace}) | {', '.join(names)} |"


def _section(spec: SignalSpec) -> str:
    rate = " May come many times a second." if spec.high_rate else ""
    lines = [
        f"### {spec.name}",
        "",
        f"{spec.summary}{rate}",
        "",
        f"Payload `{spec.payload.__name__}` · in Dagster: {spec.dagster_event} · emitted by "
        f"{', '.join(f'`{path}`' for path in spec.emitters) or 'no class yet'}",
        "",
        "| Field | Type | |",
        "|---|---|---|",
    ]
    for each in spec.fields:
        written = each.type.replace("|", "\\|")
        lines.append(f"| `{each.name}` | `{written}` | {'' if each.required else 'optional'} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reference, or with ``--check`` say whether it is up to date (exit code 1 when not)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    check = "--check" in given
    paths = [each for each in given if each != "--check"]
    path = Path(paths[0]) if paths else DEFAULT_PATH
    text = render()
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(
        f"{path} is out of date: run `python -m kindling_dagster.signals.reference {path}` and commit it.\n"
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
