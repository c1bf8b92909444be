-- Retention, and counts of messages that nobody answered.

-- Messages that nobody answered, counted by their reasons.
CREATE INDEX inbound_dead ON inbound (reason) WHERE state = 6;

-- Rows that are not as old as their numbers: kind 0 is a message, 1 what answers nothing.
CREATE TABLE expire_later (
  kind INTEGER NOT NULL,
  id INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) WITHOUT ROWID;

CREATE INDEX news_at ON news (at);

-- From the first message again: numbers were given twice, and what had them the second time was passed over.
DELETE FROM meta WHERE name IN ('texts_expired', 'content_expired', 'keys_expired');
