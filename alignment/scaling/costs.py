"""What a plan takes: memory by part under every profile, time, money; said in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from alignment import hardware
from alignment.errors import HardwareError
from alignment.hardware import Profile
from alignment.models import memory, presets
from alignment.models.memory import Memory
from alignment.scaling.laws import Interval
from alignment.scaling.plan import TURNS, Machine, Plan

GIB = 2**30


def lines(plan: Plan, name: str, machine: Machine, loss: Interval | None, measured: float | None = None) -> Iterator[str]:
    """Say a plan for a profile. `measured`: tokens a second of all processes, where they were measured."""
    shape = plan.shape
    kind = "tied" if shape.tie else "untied"
    yield f"budget       {plan.flops:.4g} FLOPs without embeddings (paper 3)"
    yield f"law          M = {plan.scale_law:.4g} FLOPs a token, D = {plan.tokens_law:.4g} tokens"
    yield f"model        {shape.layers} layers of width {shape.width}, {shape.heads} heads ({shape.kv_heads} for keys)"
    yield f"             {presets.parameters(shape):,} parameters, vocabulary {shape.vocab:,}, {kind}; M = {plan.scale:.4g}"
    yield f"tokens       {plan.tokens:,} = {plan.updates:,} updates of {plan.batch_size} x {plan.sequence}"
    yield f"batch        {plan.batch_size * plan.sequence:,} tokens ({plan.batch_law:,.0f} by equation 1)"
    yield f"warm-up      {plan.warmup:,} updates"
    points = (f"{share * plan.learning_rate:.3g} from {start * plan.tokens:.4g} tokens on" for start, share in TURNS)
    yield f"rate         {'; '.join(points)}"
    if loss is not None:
        yield f"loss         {loss} predicted, of one run (95 %)"
    yield from _time(plan, machine, measured)
    yield f"memory       of one process under each profile, with recompute / without (* : {name})"
    for known in hardware.names():
        yield f"  {'*' if known == name else ' '} {known:16} {_held(plan, known, hardware.read(known))}"
    yield f"by part      {name}: {_parts(plan, name)}"
    for text in plan.warnings:
        yield f"warning: {text}"


def _time(plan: Plan, machine: Machine, measured: float | None) -> Iterator[str]:
    if measured is not None:
        seconds, how = plan.tokens / measured, f"at the {measured:,.0f} tokens a second that were measured here"
    else:
        try:
            seconds = plan.operations / machine.speed()
        except HardwareError as error:
            yield f"time         not known: {error}"
            return
        how = f"at {machine.mfu:.0%} of {machine.peak_flops:.4g} FLOP/s each, the output layer included"
    hours = seconds / 3600
    yield f"time         {hours:,.4g} hours on {machine.processes} ({hours * machine.processes:,.4g} device hours), {how}"
    if machine.price_per_hour is None:
        yield "cost         not known: say price_per_hour in the hardware profile"
    else:
        yield f"cost         {hours * machine.processes * machine.price_per_hour:,.2f}"


def held(plan: Plan, name: str, profile: Profile, recompute: bool | str) -> Memory | None:
    """Bytes of one process under a profile; None where the batch does not divide over it."""
    try:
        micro, _ = hardware.split(profile, plan.batch_size, plan.sequence)
    except HardwareError:
        return None
    chosen = profile.model_copy(update={"recompute": recompute})
    sharded = hardware.is_sharded(name)
    return memory.estimate(plan.shape, chosen, micro * plan.sequence, sharded=sharded, length=plan.sequence)


def _held(plan: Plan, name: str, profile: Profile) -> str:
    both = [held(plan, name, profile, recompute) for recompute in (True, False)]
    if None in both:
        return f"{plan.batch_size} sequences do not divide over {profile.processes} processes"
    sizes = " / ".join(f"{found.total / GIB:,.2f}" for found in both if found)
    if profile.memory_gib is None:
        return f"{sizes} GiB"
    fits = [found is not None and found.total <= profile.memory_gib * GIB for found in both]
    return f"{sizes} GiB of {profile.memory_gib:g}: " + (
        "fits" if all(fits) else "with recompute" if fits[0] else "too much"
    )


def _parts(plan: Plan, name: str) -> str:
    profile = hardware.read(name)
    found = held(plan, name, profile, profile.recompute)
    assert found is not None, f"{plan.batch_size} was chosen for {name}"
    shared = f"; weights, gradients and optimizer are shards of {profile.processes}" if hardware.is_sharded(name) else ""
    return ", ".join(f"{part} {size / GIB:,.3g} GiB" for part, size in asdict(found).items()) + shared
