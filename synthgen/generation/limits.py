"""The limits within which requests are sent to a remote teacher."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits of a teacher. `max_in_flight` is the maximum number of requests in flight. `rpm` and `tpm` are the maximum
    numbers of requests and tokens a minute. `timeout` is the longest wait for an answer in seconds. `max_retries` is
    the maximum number of retries of a failed request.
    """

    max_in_flight: int = 64
    rpm: int | None = None
    tpm: int | None = None
    timeout: float = 300.0
    max_retries: int = 4

    @classmethod
    def of(cls, section: object) -> Limits:
        """The limits in a teacher's section. Limits that the section does not state have their default values."""
        named = [field.name for field in fields(cls) if hasattr(section, field.name)]
        return cls(**{name: getattr(section, name) for name in named})
