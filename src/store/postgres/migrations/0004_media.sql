-- Files that replies take along, each once however often it is offered: `hash` is the SHA-256 of its `length` bytes. One
-- stays as long as the longest link to it.
CREATE TABLE media_file (
  hash BYTEA PRIMARY KEY,
  expires_at BIGINT NOT NULL,
  length BIGINT NOT NULL
);
CREATE INDEX media_file_expiry ON media_file (expires_at);

-- Their bytes, so that none has to be in memory whole while it is sent.
CREATE TABLE media_piece (
  file BYTEA NOT NULL REFERENCES media_file (hash) ON DELETE CASCADE,
  number BIGINT NOT NULL,
  bytes BYTEA NOT NULL,
  PRIMARY KEY (file, number)
);
-- Pictures are compressed already.
ALTER TABLE media_piece ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Links: `key` is the SHA-256 of the secret in one. It leads to `file`, or to the file `media` of a message at Twilio.
-- `message` is the one on whose behalf it was made.
CREATE TABLE media_link (
  key BYTEA PRIMARY KEY,
  expires_at BIGINT NOT NULL,
  content_type TEXT,
  message BYTEA,
  file BYTEA,
  account BYTEA,
  slot BIGINT,
  media_message BYTEA,
  media TEXT
);
CREATE INDEX media_link_expiry ON media_link (expires_at);
CREATE INDEX media_link_message ON media_link (message) WHERE message IS NOT NULL;
CREATE INDEX media_link_file ON media_link (file) WHERE file IS NOT NULL;
