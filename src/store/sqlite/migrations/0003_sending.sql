-- What was sent first, by its caller's key: SHA-256 of it, since a key may be made of a number. It outlives the message.
CREATE TABLE send_key (
  key BLOB PRIMARY KEY,
  reply INTEGER NOT NULL,
  at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX send_key_at ON send_key (at);

-- When each of our senders may send its next message first.
CREATE TABLE send_pace (
  us TEXT PRIMARY KEY,
  free_at INTEGER NOT NULL
) WITHOUT ROWID;
