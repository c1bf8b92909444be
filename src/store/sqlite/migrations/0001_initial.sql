-- The schema of a store in SQLite. It is edited in place until the first release; after that, each change is a migration.
--
-- Numbers are small integers, times are microseconds since 1970, SIDs are 17 bytes (the first letter, then 16 bytes of
-- hexadecimal digits), states are numbered as in src/store/states.rs. Parameters are form-encoded, so that every
-- character survives.

CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- One sender and one user. `merged_into` is the conversation that this one became part of, when two addresses turned out
-- to be one user. AUTOINCREMENT: an id is never reused, because messages keep the id of a deleted conversation.
-- `newest` is the conversation's last message: the head of a list that `inbound.previous` continues.
CREATE TABLE conversation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  last_inbound INTEGER NOT NULL,
  merged_into INTEGER,
  newest INTEGER
);
CREATE INDEX conversation_merged_into ON conversation (merged_into) WHERE merged_into IS NOT NULL;

-- The addresses of the users of conversations, each with the keys of crates/core/src/address_key.rs: two spellings of one
-- number have one row. `address` is the spelling that came first, and is the one that is shown.
-- `external_id` and `parent_id` are the keys of the business-scoped IDs that the last message from this address named: a
-- message that names the same ones tells nothing new about its user.
-- `user_id` is the same in all conversations of a user who has several addresses; NULL if no link ties the address to another.
CREATE TABLE conversation_address (
  sender TEXT NOT NULL,
  address_key TEXT NOT NULL,
  consent_key TEXT NOT NULL,
  address TEXT NOT NULL,
  conversation INTEGER NOT NULL,
  external_id TEXT,
  parent_id TEXT,
  user_id INTEGER,
  PRIMARY KEY (sender, address_key)
) WITHOUT ROWID;
CREATE INDEX conversation_address_conversation ON conversation_address (conversation);
CREATE INDEX conversation_address_key ON conversation_address (address_key);

-- Evidence that two addresses are of one user, within one account. A user is a set of addresses that links connect. A user
-- with one address has no row. `a` is before `b` in the order of bytes. `sender` is the sender whose message or status
-- callback named both, or '' for an operator's link.
CREATE TABLE identity_link (
  account BLOB NOT NULL,
  a TEXT NOT NULL,
  b TEXT NOT NULL,
  sender TEXT NOT NULL,
  a_address TEXT NOT NULL,
  b_address TEXT NOT NULL,
  kind TEXT NOT NULL,
  evidence BLOB,
  note TEXT,
  at INTEGER NOT NULL,
  PRIMARY KEY (a, b, account, sender)
) WITHOUT ROWID;
-- The primary key finds the links of `a`, this index those of `b`.
CREATE INDEX identity_link_b ON identity_link (b);
-- Old links of users who never wrote are deleted.
CREATE INDEX identity_link_at ON identity_link (at);

-- The last time that an address was split off its user, within one account. Since then it is of another user. Evidence from
-- before is about the former user, and so are the replies to messages up to `last_inbound`, and the messages of the outbox up
-- to `last_outbound`: none of them is sent to the address any more.
CREATE TABLE identity_split (
  address_key TEXT NOT NULL,
  account BLOB NOT NULL,
  at INTEGER NOT NULL,
  last_inbound INTEGER NOT NULL,
  last_outbound INTEGER NOT NULL,
  PRIMARY KEY (address_key, account)
) WITHOUT ROWID;
CREATE INDEX identity_split_at ON identity_split (at);

-- The account of a sender or Messaging Service. Its consents and conversations follow the links of that account only.
CREATE TABLE scope_account (
  scope TEXT PRIMARY KEY,
  account BLOB NOT NULL
) WITHOUT ROWID;

-- The Messaging Service that a sender was last seen in, from messages with a MessagingServiceSid. An opt-out from the service
-- covers its senders, also where a message does not name the service.
CREATE TABLE service_sender (
  sender TEXT PRIMARY KEY,
  service TEXT NOT NULL
) WITHOUT ROWID;

-- Messages from users. `previous` is the message before this one in its conversation. An index in its place would be one
-- more page to write for every message; this column is in a row that is written anyway. Messages of a merged conversation
-- stay in their own list, so the history of a user reads both lists.
-- `unordered` marks a message that an operator has retried: later replies do not wait for its reply.
CREATE TABLE inbound (
  id INTEGER PRIMARY KEY,
  account BLOB NOT NULL,
  sid BLOB NOT NULL,
  conversation INTEGER NOT NULL,
  state INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  owner INTEGER,
  claimed_at INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  auth_token INTEGER NOT NULL,
  service TEXT,
  reason TEXT,
  response TEXT,
  params TEXT,
  previous INTEGER,
  unordered INTEGER
);
-- Deduplication: a second webhook for the same message finds this row.
CREATE UNIQUE INDEX inbound_key ON inbound (sid, account);
-- The messages that still need a reply, in order, for each conversation.
CREATE INDEX inbound_open ON inbound (conversation, id) WHERE state < 3;
-- Messages without a reply, counted by reason.
CREATE INDEX inbound_dead ON inbound (reason) WHERE state = 6;

-- The outbox: replies that are sent via the REST API, and outbound messages.
-- `due` is the time that the sender's rate limit assigned to a message; NULL means when it was queued.
-- `unordered` marks a reply that an operator has released, or that belongs to a message with that mark.
-- `resent_after` is the error code after which the message is sent a second time without an operator. It happens once.
-- `text_after` is the error code after which the text of a message with refused content is sent. It happens once, too.
-- `retried_after` is the error code after which the last call was repeated: Twilio had not processed it.
-- `earlier_sid` is the SID of the message's send before its current one. Twilio had accepted that send, which then failed.
-- `address_key` and `consent_key` are the keys of `address`, as in `conversation_address`.
-- `confirms_opt_out` marks the confirmation of an opt-out, which is sent although its user has opted out.
-- `preparing` marks a claimed message whose content is looked up or made at Twilio: no call has sent it yet.
CREATE TABLE outbound (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  inbound INTEGER,
  ordinal INTEGER NOT NULL,
  account BLOB NOT NULL,
  auth_token INTEGER NOT NULL,
  sender TEXT NOT NULL,
  address TEXT NOT NULL,
  address_key TEXT NOT NULL,
  consent_key TEXT NOT NULL,
  service TEXT,
  template INTEGER NOT NULL,
  state INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0,
  lookups INTEGER NOT NULL DEFAULT 0,
  owner INTEGER,
  not_before INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  sent_at INTEGER,
  sid BLOB,
  status TEXT,
  rank INTEGER NOT NULL DEFAULT -1,
  error_code INTEGER,
  reason TEXT,
  params TEXT,
  due INTEGER,
  unordered INTEGER,
  resent_after INTEGER,
  text_after INTEGER,
  retried_after INTEGER,
  earlier_sid BLOB,
  confirms_opt_out INTEGER,
  preparing INTEGER
);
CREATE INDEX outbound_open ON outbound (state, not_before) WHERE state < 4;
CREATE INDEX outbound_inbound ON outbound (inbound, ordinal);
CREATE INDEX outbound_sid ON outbound (sid) WHERE sid IS NOT NULL;
CREATE INDEX outbound_earlier_sid ON outbound (earlier_sid) WHERE earlier_sid IS NOT NULL;
-- Messages to one address are sent one after the other, oldest first.
CREATE INDEX outbound_queue ON outbound (sender, address_key, account) WHERE state < 3;
-- Messages that Twilio holds until their time; they are canceled when the user opts out.
CREATE INDEX outbound_scheduled ON outbound (id) WHERE status = 'scheduled';

-- The order of the outbox: messages of one account, from one sender to one address, are a queue, and only its first message is
-- sent, after earlier ones to the other addresses of its conversation (src/store/shared/due_messages.rs). This view has the messages with a place in a queue. It omits a part of a reply behind a HELD or FAILED part (3, 5),
-- which is not sent without an operator, so that no other message waits for it. A part behind one that waits for its second
-- send has its place: it does not wait for that send, and an answer to a newer message must not overtake it.
-- `keeps_place`: the message is SENDING or UNKNOWN (1, 2), or was tried before. Any other message has a place only once its
-- time, `not_before`, has come.
-- `state < 3`, below HELD, is the condition of the index `outbound_queue`.
CREATE VIEW outbound_in_queue AS
SELECT r.id, r.inbound, r.account, r.sender, r.address_key, r.not_before, r.created_at, r.unordered,
  (r.state > 0 OR r.attempt > 0) AS keeps_place
FROM outbound r
WHERE r.state < 3 AND (r.inbound IS NULL OR NOT EXISTS (
  SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal
    AND p.state IN (3, 5)));

-- Status callbacks of messages whose SID is not in the outbox yet, or never will be.
CREATE TABLE unmatched_status (
  sid BLOB NOT NULL,
  account BLOB NOT NULL,
  status TEXT NOT NULL,
  rank INTEGER NOT NULL,
  error_code INTEGER,
  at INTEGER NOT NULL,
  PRIMARY KEY (sid, account)
) WITHOUT ROWID;
CREATE INDEX unmatched_status_at ON unmatched_status (at);

-- The current consent of an address, by its key. `scope` is a sender's address or the SID of a Messaging Service.
-- What the user did under this address: `opt_out` is the last opt-out, `since` the first one that no START has ended since,
-- and `start` the last START or opt-in, each as an id of `consent_ledger`. A higher id is later, whatever the clocks of two
-- servers say. `own_opt_in` is the time of the opt-in under this address.
-- What follows from these facts and from those of the user's other addresses: `suppressed` is the opt-out that applies, an id
-- of `consent_ledger`; NULL if none does. `opted_in` is the time of the opt-in that applies. Every change of a fact or a
-- link writes them again for all addresses of the user, so that accepting and sending a message read one row.
CREATE TABLE consent (
  consent_key TEXT NOT NULL,
  scope TEXT NOT NULL,
  opt_out INTEGER,
  since INTEGER,
  start INTEGER,
  own_opt_in INTEGER,
  suppressed INTEGER,
  opted_in INTEGER,
  PRIMARY KEY (consent_key, scope)
) WITHOUT ROWID;

-- The evidence for it. Rows are only added, and deleted by a purge alone. `origin` and `proof` are what a program or a file has
-- stated: the place where the user agreed or refused, and a proof other than a message.
CREATE TABLE consent_ledger (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  source TEXT NOT NULL,
  evidence BLOB,
  note TEXT,
  at INTEGER NOT NULL,
  origin TEXT,
  proof TEXT
);
CREATE INDEX consent_ledger_address ON consent_ledger (address);

-- The state of a conversation's form or handler.
CREATE TABLE dialogue (
  conversation INTEGER PRIMARY KEY,
  data TEXT NOT NULL,
  expires_at INTEGER,
  changed_at INTEGER NOT NULL
);

-- The question with choices that waits for its answer: `id` is the identity that its buttons carry, `data` its choices.
-- `numbered` marks one that was sent as a numbered text after its buttons failed.
CREATE TABLE question (
  conversation INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  data TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  asked_at INTEGER NOT NULL,
  numbered INTEGER NOT NULL DEFAULT 0
);

-- Idempotency keys of outbound messages: SHA-256, since a key may contain a phone number. A key outlives its message.
-- `fingerprint` is a salted hash of all parts of the message, by which another message with the key is told.
CREATE TABLE idempotency_key (
  key BLOB PRIMARY KEY,
  outbound INTEGER NOT NULL,
  at INTEGER NOT NULL,
  fingerprint BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_key_at ON idempotency_key (at);

-- The rate limit: the earliest time of each sender's next outbound message.
CREATE TABLE send_rate (
  sender TEXT PRIMARY KEY,
  free_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Files that replies attach, each stored once: `hash` is the SHA-256 of its `length` bytes. A file is kept as long as the
-- longest link to it.
CREATE TABLE media_file (
  hash BLOB PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  length INTEGER NOT NULL
);
CREATE INDEX media_file_expiry ON media_file (expires_at);

-- The bytes of a file, in chunks, so that no file has to be in memory whole while it is sent.
CREATE TABLE media_chunk (
  file BLOB NOT NULL,
  number INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (file, number)
);
CREATE TRIGGER media_file_deleted AFTER DELETE ON media_file BEGIN
  DELETE FROM media_chunk WHERE file = OLD.hash;
END;

-- Links: `token_hash` is the SHA-256 of the token in the URL. A link leads to `file`, or to the file `media` of a message at
-- Twilio. `message` is the message whose reply the link was made for.
CREATE TABLE media_link (
  token_hash BLOB PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  content_type TEXT,
  message BLOB,
  file BLOB,
  account BLOB,
  auth_token INTEGER,
  media_message BLOB,
  media TEXT
) WITHOUT ROWID;
CREATE INDEX media_link_expiry ON media_link (expires_at);
CREATE INDEX media_link_message ON media_link (message) WHERE message IS NOT NULL;
CREATE INDEX media_link_file ON media_link (file) WHERE file IS NOT NULL;

-- The key that tags the tokens of all links, 32 random bytes. A token with an invalid tag is rejected before any look-up.
-- The program makes the key, from the operating system's random numbers, when it opens a store without one.
CREATE TABLE media_link_key (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  key BLOB NOT NULL
);

-- Conversations handed off to a person or another system: their messages are redirected to `url`. If it is
-- empty, they get no reply: the bot is silent. `ttl` is the time in microseconds from the user's last message to `until`.
CREATE TABLE handoff (
  conversation INTEGER PRIMARY KEY,
  url TEXT NOT NULL,
  until INTEGER NOT NULL,
  ttl INTEGER NOT NULL
);

-- Events that wait for delivery to `handler.events_url`; written only if it is set. The events of one `user_key` are
-- delivered in the order of their ids. `user_key` is the user's `user_id`, or else the address key of a user with one
-- address. `inbound` is the message that the event is about; an event without `data` takes its content from there.
-- AUTOINCREMENT: an id is never reused, because the service recognizes repeated deliveries by it.
CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  user_key TEXT NOT NULL,
  address_key TEXT NOT NULL,
  sender TEXT NOT NULL,
  address TEXT NOT NULL,
  inbound INTEGER,
  data TEXT,
  at INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0,
  owner INTEGER,
  not_before INTEGER NOT NULL
);
CREATE INDEX event_queue ON event (user_key, id);
CREATE INDEX event_at ON event (at);
CREATE INDEX event_inbound ON event (inbound) WHERE inbound IS NOT NULL;

-- Retention deletes in the order of ids. Rows whose age does not follow from their id: kind 0 is an inbound message, kind 1
-- an outbound message that is not a reply.
CREATE TABLE expire_later (
  kind INTEGER NOT NULL,
  id INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) WITHOUT ROWID;
