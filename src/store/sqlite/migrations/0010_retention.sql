-- Retention, and counts of messages that nobody answered.

-- Messages that nobody answered, counted by their reasons.
CREATE INDEX inbound_dead ON inbound (reason) WHERE state = 6;
