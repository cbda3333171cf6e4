"""Judging replies, counting them, and the gate: from outcomes to a report that can be signed."""
