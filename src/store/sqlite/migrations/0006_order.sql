-- What waits for one person, or is on its way to them, oldest first: it goes one after the other.
CREATE INDEX reply_line ON reply (us, address) WHERE state < 3;

-- When a message may go that has its place in its sender's pace; any other may when it is made.
ALTER TABLE reply ADD COLUMN due INTEGER;
