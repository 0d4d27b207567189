"""What was observed while verifying, as data, and as a plain-text table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

StepOutcome: TypeAlias = Literal["ok", "wrong", "inert", "raises", "unknown"]
Stage: TypeAlias = Literal["load", "after_load", "switch", "after_switch", "forward"]

_BADNESS: dict[StepOutcome, int] = {"ok": 0, "unknown": 1, "inert": 2, "wrong": 3, "raises": 4}


def worst(outcomes: Iterable[StepOutcome]) -> StepOutcome:
    """The worst of several outcomes: raises, then wrong, inert, unknown, ok."""
    return max(outcomes, key=_BADNESS.__getitem__, default="ok")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """An output is right when its largest difference is at most ``absolute + relative * max|reference|``."""

    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """What an adapter is compared with.

    Attributes:
        name: adapter name.
        path: the adapter directory.
        source: ``merged`` (by hand, without PEFT), ``peft`` (loaded alone by PEFT) or ``none``.
        effect: largest difference between the reference and the output of the bare base; None without a reference.
        reason: why it is not ``merged``.
        unused: how many tensors of the file the recipe does not use.
    """

    name: str
    path: str
    source: Literal["merged", "peft", "none"]
    effect: float | None
    reason: str | None
    unused: int


@dataclass(frozen=True, slots=True)
class Step:
    """One observation.

    Attributes:
        adapter: the adapter that was loaded, switched to or compared.
        stage: ``after_load`` and ``after_switch`` compare outputs; ``load``, ``switch`` and ``forward`` raised.
        outcome: ``ok``; ``wrong``: another output; ``inert``: the base's own output; ``raises``; ``unknown``: there is
            no reference.
        difference: largest absolute difference to the reference; None for NaN, another size or no comparison.
        exception: ``Type: message``.
    """

    adapter: str
    stage: Stage
    outcome: StepOutcome
    difference: float | None = None
    exception: str | None = None


@dataclass(frozen=True, slots=True)
class OrderResult:
    """One loading order. A failed load ends it, since PEFT keeps half of the failed adapter."""

    order: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def outcome(self) -> StepOutcome:
        """The worst outcome of the steps."""
        return worst(step.outcome for step in self.steps)

    @property
    def first_failure(self) -> Step | None:
        """The first step that is not ok."""
        return next((step for step in self.steps if step.outcome != "ok"), None)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of :func:`adapterlint.verifying.verify`.

    Attributes:
        device: ``cpu`` or ``cuda``.
        device_name: name of the GPU.
        versions: releases of peft, transformers and torch.
        base: path of the base model.
        architecture: its transformers class.
        dtype: dtype in which the base ran.
        tolerance: what counts as equal.
        adapters: the references, in the order given.
        orders: what happened in each loading order.
        warnings: what the libraries would have printed, each message once.
        seconds: wall time without the imports.
    """

    device: str
    device_name: str | None
    versions: dict[str, str]
    base: str
    architecture: str
    dtype: str
    tolerance: Tolerance
    adapters: tuple[AdapterReference, ...]
    orders: tuple[OrderResult, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every output in every order was the adapter's own."""
        return all(order.outcome == "ok" for order in self.orders)

    @property
    def outcomes(self) -> dict[str, StepOutcome]:
        """Worst outcome of each adapter over all orders."""
        steps = [step for order in self.orders for step in order.steps]
        return {each.name: worst(s.outcome for s in steps if s.adapter == each.name) for each in self.adapters}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the computed outcomes."""
        result = asdict(self)
        for order, plain in zip(self.orders, result["orders"], strict=True):
            plain["outcome"] = order.outcome
        right = sum(order.outcome == "ok" for order in self.orders)
        summary = {"ok": self.ok, "orders": len(self.orders), "orders_ok": right, "outcomes": self.outcomes}
        return result | {"summary": summary}


def render_table(report: VerifyReport) -> str:
    """The report as plain text: what ran, one row an adapter, one row an order, exceptions, a closing line."""
    names = [each.name for each in report.adapters]
    parts = ["\n".join(_heading(report)), _references(report.adapters)]
    rows = [["order", "after load", *(f"to {name}" for name in names if len(names) > 1)]]
    rows += [_order_row(order, names) for order in report.orders]
    parts.append(_columns(rows))
    steps = [step for order in report.orders for step in order.steps]
    raised = Counter((step.stage, step.adapter, step.exception) for step in steps if step.exception)
    parts += ["\n".join(_raised_line(*key, count) for key, count in raised.items())] if raised else []
    return "\n\n".join([*parts, _closing(report)]) + "\n"


def _heading(report: VerifyReport) -> list[str]:
    device = f"{report.device} ({report.device_name})" if report.device_name else report.device
    limit = report.tolerance
    return [
        ", ".join([*(f"{name} {version}" for name, version in report.versions.items()), device]),
        f"base {report.base} ({report.architecture}, {report.dtype}); "
        f"equal within {limit.absolute:g} + {limit.relative:g} * max|reference|",
    ]


def _references(adapters: Sequence[AdapterReference]) -> str:
    rows = [["adapter", "reference", "effect", "note"]]
    for each in adapters:
        effect = "-" if each.effect is None else f"{each.effect:.3g}"
        rows.append([each.name, each.source, effect, _one_line(each.reason or "")])
    return _columns(rows)


def _order_row(order: OrderResult, names: Sequence[str]) -> list[str]:
    # the first step is the comparison right after loading, or the exception that prevented it
    later = order.steps[1:]
    cells = [_cell([step for step in later if step.adapter == name]) for name in names if len(names) > 1]
    return [" ".join(order.order), _cell(order.steps[:1]), *cells]


def _cell(steps: Sequence[Step]) -> str:
    if not steps:
        return "-"
    step = max(steps, key=lambda each: _BADNESS[each.outcome])
    gap = f" {step.difference:.2g}" if step.outcome == "wrong" and step.difference is not None else ""
    return step.outcome + gap


def _raised_line(stage: str, adapter: str, exception: str | None, count: int) -> str:
    times = f" ({count} times)" if count > 1 else ""
    return f"{stage} of {adapter} raises{times}: {_one_line(exception or '')}"


def _closing(report: VerifyReport) -> str:
    right = sum(order.outcome == "ok" for order in report.orders)
    orders = f"{len(report.orders)} loading order{'s' if len(report.orders) > 1 else ''}"
    verdict = "every adapter answers as trained" if report.ok else "not every adapter answers as trained"
    return f"{verdict}: {right} of {orders} right, in {report.seconds:.1f} s"


def _one_line(text: str, longest: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 3]}..."


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
