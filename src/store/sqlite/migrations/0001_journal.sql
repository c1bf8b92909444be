-- Numbers are small integers, times are µs since 1970, SIDs are 17 bytes (first letter, 16 bytes of digits), states as
-- in src/store/rows.rs. Parameters are form-encoded, so that every character survives.

CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- One of our senders and one user. `joined` points to the conversation that took this one over. A number is never given
-- twice: messages keep that of a conversation that was deleted.
CREATE TABLE conversation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  last_inbound INTEGER NOT NULL,
  joined INTEGER
);
CREATE INDEX conversation_joined ON conversation (joined) WHERE joined IS NOT NULL;

-- A user may have several addresses.
CREATE TABLE conversation_address (
  us TEXT NOT NULL,
  address TEXT NOT NULL,
  conversation INTEGER NOT NULL,
  PRIMARY KEY (us, address)
) WITHOUT ROWID;
CREATE INDEX conversation_address_conversation ON conversation_address (conversation);

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
  slot INTEGER NOT NULL,
  service TEXT,
  reason TEXT,
  answer TEXT,
  params TEXT
);
CREATE UNIQUE INDEX inbound_key ON inbound (sid, account);
CREATE INDEX inbound_open ON inbound (conversation, id) WHERE state < 3;

CREATE TABLE reply (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  inbound INTEGER,
  ordinal INTEGER NOT NULL,
  account BLOB NOT NULL,
  slot INTEGER NOT NULL,
  us TEXT NOT NULL,
  address TEXT NOT NULL,
  service TEXT,
  template INTEGER NOT NULL,
  state INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0,
  looks INTEGER NOT NULL DEFAULT 0,
  owner INTEGER,
  not_before INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  sent_at INTEGER,
  sid BLOB,
  status TEXT,
  rank INTEGER NOT NULL DEFAULT -1,
  error_code INTEGER,
  reason TEXT,
  params TEXT
);
CREATE INDEX reply_open ON reply (state, not_before) WHERE state < 4;
CREATE INDEX reply_inbound ON reply (inbound, ordinal);
CREATE INDEX reply_sid ON reply (sid) WHERE sid IS NOT NULL;

-- News of messages that we do not know yet, or never will.
CREATE TABLE news (
  sid BLOB NOT NULL,
  account BLOB NOT NULL,
  status TEXT NOT NULL,
  rank INTEGER NOT NULL,
  error_code INTEGER,
  at INTEGER NOT NULL,
  PRIMARY KEY (sid, account)
) WITHOUT ROWID;

-- What counts now. `scope` is a sender's address or a Messaging Service's SID.
CREATE TABLE consent (
  address TEXT NOT NULL,
  scope TEXT NOT NULL,
  opted_out INTEGER,
  opted_in INTEGER,
  PRIMARY KEY (address, scope)
) WITHOUT ROWID;

-- Why it counts. Only ever added to.
CREATE TABLE consent_ledger (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  how TEXT NOT NULL,
  evidence BLOB,
  note TEXT,
  at INTEGER NOT NULL
);

CREATE TABLE dialogue (
  conversation INTEGER PRIMARY KEY,
  data TEXT NOT NULL,
  expires_at INTEGER,
  changed_at INTEGER NOT NULL
);
