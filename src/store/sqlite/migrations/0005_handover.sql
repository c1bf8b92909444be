-- Conversations whose messages are redirected to `url`, where somebody else answers them.
CREATE TABLE handover (
  conversation INTEGER PRIMARY KEY,
  url TEXT NOT NULL,
  until INTEGER NOT NULL
);
