"""Why a fix was not carried out. Every adapter is as it was before, unless the text of the error says otherwise."""

from __future__ import annotations

from adapterlint.errors import UserError


class FixError(UserError):
    """Base of what :func:`adapterlint.fixing.apply.apply_all` raises.

    Attributes:
        path: the file or directory concerned.
        reason: why it was not done, in one sentence without a full stop.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class PlanError(FixError):
    """The edits do not fit the adapter or the base: an unknown tensor, a name taken twice, an unreadable header."""


class RefusedError(FixError):
    """The edits could be made, but would reach something that others share, or overwrite something."""


class WriteError(FixError):
    """The system refused: no space, no permission, another run at work, a file changed meanwhile."""


class ProofError(FixError):
    """The new files are not what the edits say, or the check of them complained; they were thrown away.

    Attributes:
        complaints: what the check said, one sentence each; empty if the proof itself failed.
    """

    def __init__(self, path: str, reason: str, complaints: tuple[str, ...] = ()) -> None:
        super().__init__(path, reason)
        # BaseException.__reduce__ rebuilds from args, which must match the signature for the error to be pickled.
        self.args = (path, reason, complaints)
        self.complaints = complaints


class InternalError(RuntimeError):
    """A defect of the rules, not of anybody's files: one crashed, or fixes undo one another.

    Attributes:
        traces: the tracebacks of rules that crashed.
    """

    def __init__(self, reason: str, traces: tuple[str, ...] = ()) -> None:
        super().__init__(reason, traces)
        self.reason = reason
        self.traces = traces

    def __str__(self) -> str:
        return self.reason
