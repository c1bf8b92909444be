-- The messages of a conversation, newest first: `newest` is the last one, and each has its `previous` one. An index would
-- be one more page to be written for every message; this is in rows that are written anyway. Messages of a conversation
-- that was joined to another are in its own line: whoever reads them all reads both lines.
ALTER TABLE conversation ADD COLUMN newest INTEGER;
ALTER TABLE inbound ADD COLUMN previous INTEGER;

UPDATE conversation SET newest = last.id
FROM (SELECT conversation, max(id) AS id FROM inbound GROUP BY conversation) AS last
WHERE last.conversation = conversation.id;

-- What has no content any more has nobody to tell of it: those rows stay as they are, and are the ends of their lines.
UPDATE inbound SET previous = line.previous
FROM (SELECT id, lag(id) OVER (PARTITION BY conversation ORDER BY id) AS previous FROM inbound) AS line
WHERE line.id = inbound.id AND line.previous IS NOT NULL AND inbound.params IS NOT NULL;
