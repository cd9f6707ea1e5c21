"""Decide which steps are cached and which must run, and why, for `plan` and for runs."""

from collections.abc import Collection
from dataclasses import dataclass

from cnn.config.run import RunConfig
from cnn.pipeline.steps import STEPS, Step, with_followers
from cnn.store import keys
from cnn.store.keys import Key
from cnn.store.manifests import Manifest
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store


@dataclass(frozen=True)
class Decision:
    """Whether a step is cached (it has a `manifest`) or must run, and why.

    problem: what is wrong with the artifact in the store, if it failed verification.
    """

    manifest: Manifest | None
    why: str
    problem: str = ""


@dataclass(frozen=True)
class Planned:
    """One step of a plan: "cached", "run", or "depends" if a step that it reads must run."""

    step: Step
    state: str
    why: str
    ref: Ref | None = None


def decide(store: Store, step: Step, key: Key, refresh: Collection[str] = ()) -> Decision:
    """Return whether a step is cached, and why; changes nothing on disk."""
    if step.name in refresh:
        return Decision(None, "asked for with --refresh")
    found = store.find(key)
    if found.manifest:
        return Decision(
            found.manifest, f"made {found.manifest.created:%Y-%m-%d %H:%M} UTC, verified"
        )
    if found.problem:
        return Decision(None, f"artifact {found.problem}", found.problem)
    return Decision(None, _reason(store, step, key))


def plan(store: Store, config: RunConfig, refresh: Collection[str] = ()) -> list[Planned]:
    """Return for every step whether it is cached or must run, and why.

    Raises DataError if the data that the settings name cannot be read, and ConfigError for a
    setting without effect.
    """
    to_refresh = with_followers(refresh)
    refs: dict[Kind, Ref] = {}
    planned: list[Planned] = []
    for step in STEPS:
        resolved = step.resolve(step.slice(config), store.downloads)
        missing = [item.step.name for item in planned if _must_wait(step, item)]
        if missing:
            planned.append(Planned(step, "depends", f"depends on {missing[0]}"))
            continue
        if resolved.missing:
            planned.append(Planned(step, "run", resolved.missing))
            continue
        key = step.key(resolved, [refs[kind] for kind in step.reads])
        decision = decide(store, step, key, to_refresh)
        ref = decision.manifest.ref if decision.manifest else None
        if ref:
            refs[step.makes] = ref
        planned.append(Planned(step, "cached" if ref else "run", decision.why, ref))
    return planned


def _must_wait(step: Step, earlier: Planned) -> bool:
    return earlier.state != "cached" and earlier.step.makes in step.reads


def _reason(store: Store, step: Step, key: Key) -> str:
    """Return how a key differs from this step's most similar artifact; a tie goes to the newest."""
    candidates = [
        (keys.differences(earlier.components, key.components), earlier.created)
        for earlier in store.manifests(step.makes)
        if earlier.components.get("step", step.name) == step.name
    ]
    if not candidates:
        return f"no {step.makes} in the store yet"
    newest_first = sorted(candidates, key=lambda item: item[1], reverse=True)
    nearest, _ = min(newest_first, key=lambda item: len(item[0]))
    return "; ".join(nearest[:6]) + ("; ..." if len(nearest) > 6 else "") or "never made"
