-- Files that replies take along, each once however often it is offered: `hash` is the SHA-256 of its `length` bytes. One
-- stays as long as the longest link to it.
CREATE TABLE media_file (
  hash BLOB PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  length INTEGER NOT NULL
);
CREATE INDEX media_file_expiry ON media_file (expires_at);

-- Their bytes, so that none has to be in memory whole while it is sent.
CREATE TABLE media_piece (
  file BLOB NOT NULL,
  number INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (file, number)
);
CREATE TRIGGER media_file_gone AFTER DELETE ON media_file BEGIN
  DELETE FROM media_piece WHERE file = OLD.hash;
END;

-- Links: `key` is the SHA-256 of the secret in one. It leads to `file`, or to the file `media` of a message at Twilio.
-- `message` is the one on whose behalf it was made.
CREATE TABLE media_link (
  key BLOB PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  content_type TEXT,
  message BLOB,
  file BLOB,
  account BLOB,
  slot INTEGER,
  media_message BLOB,
  media TEXT
) WITHOUT ROWID;
CREATE INDEX media_link_expiry ON media_link (expires_at);
CREATE INDEX media_link_message ON media_link (message) WHERE message IS NOT NULL;
CREATE INDEX media_link_file ON media_link (file) WHERE file IS NOT NULL;
