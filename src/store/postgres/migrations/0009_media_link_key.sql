-- Media links that are checked before any look-up: the key that tags the tokens of all links, 32 random bytes. The program
-- makes it, from the operating system's random numbers, when it opens a store that has none.
CREATE TABLE media_link_key (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  key BYTEA NOT NULL
);
