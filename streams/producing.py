"""Send NDJSON lines to the topics they belong to, each checked first."""

from __future__ import annotations

from ..schemas import codecs
from ..schemas.errors import BrokerUnavailable, DriftloopError, EventInvalid
from ..schemas.events import LabelArrived, PredictionMade
from ..settings import Settings
from .client_settings import shown_address
from .event_lines import tell
from .text_file import read_lines
from .transport import Outgoing, Transport

KINDS = {"predictions": PredictionMade, "labels": LabelArrived}
HEADERS = (("content-type", codecs.JSON.encode()),)
FLUSH_S = 30.0


def produce_lines(transport: Transport, settings: Settings, path: str) -> dict[str, int]:
    """Send every line of a file and return how many went to each topic; raises DriftloopError at the first bad line,
    NotFound where a topic is not there, BrokerUnavailable before anything is read where no broker answers.
    """
    sent = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        transport.end_offsets(settings.topic(kind))
    sender = transport.sender()
    try:
        for line, value in read_lines(path):
            try:
                told = tell(value)
                if told.kind not in KINDS:
                    raise EventInvalid("malformed", f"event must be a prediction or a label, got one for {told.kind}")
                event = codecs.decode(value, KINDS[told.kind], told.kind)
            except EventInvalid as problem:
                raise DriftloopError(f"{problem} ({path}, line {line}; {sum(sent.values())} events before it were sent)") from None
            sender.send(Outgoing(settings.topic(told.kind), event.model.encode(), value, HEADERS))
            sent[told.kind] += 1
        left = sender.flush(FLUSH_S)
        if left:
            raise BrokerUnavailable(f"{left} events must be acknowledged within {FLUSH_S:g} s ({shown_address(settings)})")
    finally:
        sender.close()
    return sent
