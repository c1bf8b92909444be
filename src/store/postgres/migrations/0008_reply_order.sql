-- Order of replies across TwiML and the REST API. `unordered` marks a message that an operator has retried, and a reply that
-- an operator has released or that belongs to such a message: later replies do not wait for it.
ALTER TABLE inbound ADD COLUMN unordered BOOLEAN;
ALTER TABLE reply ADD COLUMN unordered BOOLEAN;
