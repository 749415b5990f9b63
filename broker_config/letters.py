"""What is handed to the publisher and what comes back: a letter, and the report of a sending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..models.errors import Invalid
from ..models.wire import MAX_BODY_BYTES

#: AMQP's short strings: routing key and the properties named below.
_SHORT_BYTES = 255


@dataclass(frozen=True)
class Letter:
    """One message to be published. Persistence, `mandatory`, identity and time are the publisher's and always set."""

    #: Unique among the letters of one sending; the report speaks of letters by it.
    message_id: str
    routing_key: str
    #: JSON, at most wire.MAX_BODY_BYTES.
    body: bytes
    #: The job's id, where there is one.
    correlation_id: str = ""
    #: The kind: `account.create`, `ack`, `hello` ...
    type: str = ""
    headers: Mapping[str, str | int] = field(default_factory=dict)
    #: After this long in the queue the broker drops the letter (actions and questions only).
    expiration_ms: int | None = None

    def __post_init__(self) -> None:
        if len(self.body) > MAX_BODY_BYTES:
            raise Invalid(f"message {self.message_id}: {len(self.body)} bytes, the limit is {MAX_BODY_BYTES}")
        for name in ("message_id", "routing_key", "correlation_id", "type"):
            if len(getattr(self, name).encode()) > _SHORT_BYTES:
                raise Invalid(f"message {self.message_id}: {name} is longer than {_SHORT_BYTES} bytes")
        if not self.message_id:
            raise Invalid("a message needs an id")


@dataclass(frozen=True)
class Report:
    """What became of the letters of one sending. What is in none of the lists is unconfirmed: send it again."""

    #: Stored by every queue they were routed to.
    sent: list[str] = field(default_factory=list)
    #: No queue takes this routing key: message id to the broker's words.
    unroutable: dict[str, str] = field(default_factory=dict)
    #: A queue refused to take them: it is full.
    nacked: list[str] = field(default_factory=list)
    #: Why the rest is unconfirmed; empty if nothing is.
    why: str = ""
    #: AMQP's reply code behind `why`, if the broker gave one; 403 and 404: the topology is not as it should be.
    code: int = 0
