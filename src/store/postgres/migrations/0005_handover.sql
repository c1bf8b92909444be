-- Conversations whose messages are redirected to `url`, where somebody else answers them.
CREATE TABLE handover (
  conversation BIGINT PRIMARY KEY,
  url TEXT NOT NULL,
  until BIGINT NOT NULL
);
