"""driftloop: watch models through Kafka, know when they drift, and repair them."""

__version__ = "0.1.0"
