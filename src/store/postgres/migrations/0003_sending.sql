-- What was sent first, by its caller's key: SHA-256 of it, since a key may be made of a number. It outlives the message.
CREATE TABLE send_key (
  key BYTEA PRIMARY KEY,
  reply BIGINT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX send_key_at ON send_key (at);

-- When each of our senders may send its next message first.
CREATE TABLE send_pace (
  us TEXT COLLATE "C" PRIMARY KEY,
  free_at BIGINT NOT NULL
);
