"""What a spec becomes on disk and on the wire: rendered once for each revision, its secrets beside it."""

from __future__ import annotations

from ..models import nouns
from ..models.canonical import canonical
from ..models.errors import Invalid
from ..models.wire import MAX_BODY_BYTES

#: Room kept in a letter for everything around the payload.
ENVELOPE_BYTES = 16 * 1024


def rendered(noun: nouns.Noun, spec: nouns.Spec | None) -> tuple[bytes | None, bytes | None]:
    """Payload and secrets of a spec; both None for an absent one. Raises Invalid if they are too large to travel."""
    if spec is None:
        return None, None
    plain, secret = noun.split(spec)
    payload, secrets = canonical(plain), canonical(secret) if secret else None
    if len(payload) + len(secrets or b"") > MAX_BODY_BYTES - ENVELOPE_BYTES:
        raise Invalid(f"{noun.name}: the spec is larger than {MAX_BODY_BYTES - ENVELOPE_BYTES} bytes")
    return payload, secrets
