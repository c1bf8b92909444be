// Generated from src/api/openapi.json: REPLYHOOK_UPDATE_DOCS=1 cargo test --test it payload_types

export interface Consent {
  address: string;
  at: string | null;
  consents?: Array<Consent>;
  evidence: string | null;
  note: string | null;
  sender?: string;
  service?: string;
  source: string | null;
  /** null: the user has taken an opt-out back, and has never opted in. */
  status: "opted_in" | "opted_out" | null;
}

/** An opt-in or opt-out, to handler.events_url */
export interface ConsentChangedEvent {
  at: string;
  data: ConsentEventData;
  id: string;
  type: "consent.changed";
}

export interface ConsentEventData {
  address: string;
  at: string;
  change: "opt_in" | "opt_out" | "resume";
  /** SID of the message. */
  evidence: string | null;
  note: string | null;
  /** null for a Messaging Service. */
  sender: string | null;
  /** null for a sender. */
  service: string | null;
  source: "keyword" | "opt_out_type" | "refusal" | "operator" | "api" | "webhook";
  status: "opted_in" | "opted_out";
}

/** A message whose content retention has deleted before the event was delivered. */
export interface DeletedMessage {
  account_sid: string;
  body: null;
  from: string;
  message_sid: string;
  received_at: string;
  to: string;
}

export interface ForwardedMessage {
  account_sid: string;
  attempt: number;
  body: string;
  button: {
    payload: string | null;
    text: string | null;
    type: string | null;
  } | null;
  channel: string;
  choice: {
    current: boolean;
    id: string;
    key: string | null;
    title: string;
    via: "button" | "list" | "chip" | "number" | "text";
  } | null;
  external_user_id: string | null;
  flow: Record<string, unknown> | null;
  from: string;
  location: {
    address: string | null;
    label: string | null;
    latitude: number | null;
    longitude: number | null;
  } | null;
  media: Array<{
    content_type: string | null;
    /** A URL that works without Twilio's credentials for an hour. */
    link: string | null;
    url: string;
  }>;
  /** SIDs of further messages that were merged into this one. */
  merged?: Array<string>;
  message_sid: string;
  message_type: string | null;
  messaging_service_sid: string | null;
  opt_out: null;
  params: Array<[string, string]>;
  parent_external_user_id: string | null;
  profile_name: string | null;
  received_at: string;
  referral: Record<string, unknown> | null;
  replied_to: Record<string, unknown> | null;
  to: string;
}

export interface Handoff {
  address: string;
  handoffs?: Array<Handoff>;
  sender: string;
  ttl: string;
  until: string;
  url: string | null;
}

/** The end of a handoff, to handler.events_url */
export interface HandoffEndedEvent {
  at: string;
  data: HandoffEventData;
  id: string;
  type: "handoff.ended";
}

export interface HandoffEventData {
  address: string;
  reason: "reply" | "request" | "expired";
  sender: string;
  /** Time from which the bot replies again. */
  until: string;
  /** null: the bot is silent. */
  url: string | null;
}

export interface HandoffStart {
  ttl?: string | null;
  /** null: the bot is silent. */
  url?: string | null;
}

/** The start of a handoff, to handler.events_url */
export interface HandoffStartedEvent {
  at: string;
  data: HandoffEventData;
  id: string;
  type: "handoff.started";
}

export interface KeyInUse {
  id: number;
  message: string;
  reason: "key_in_use";
  remedy: string;
}

export interface Link {
  link: {
    title: string;
    url: string;
  };
}

export interface Location {
  label?: string | null;
  latitude: number;
  longitude: number;
}

export interface Message {
  error_code: number | null;
  error_meaning?: string | null;
  id: number;
  /** Twilio's SID, once the message is sent. */
  sid: string | null;
  state: MessageState;
  /** Twilio's latest delivery status. */
  status?: string | null;
}

export interface MessageEventData {
  direction: "inbound" | "outbound";
  error_code: number | null;
  /** Meaning of the code, or replyhook's reason. */
  error_meaning: string | null;
  from: string;
  /** Number in the outbox; null for a message of a user, and for one that replyhook did not send. */
  id: number | null;
  sid: string | null;
  /** Twilio's status once Twilio has accepted the message; before: pending, unknown, held, failed or suppressed. A user's message is failed or dead. */
  state: string;
  to: string;
}

/** A message that was not sent or not delivered, to handler.events_url */
export interface MessageFailedEvent {
  at: string;
  data: MessageEventData;
  id: string;
  type: "message.failed";
}

/** A message from a user while the conversation is handed off, to handler.events_url */
export interface MessageReceivedEvent {
  at: string;
  data: ForwardedMessage | DeletedMessage;
  id: string;
  type: "message.received";
}

export type MessageState = "pending" | "sending" | "unknown" | "held" | "sent" | "failed" | "suppressed" | "deleted";

/** A delivery status of a message, to handler.events_url */
export interface MessageStatusEvent {
  at: string;
  data: MessageEventData;
  id: string;
  type: "message.status";
}

export interface NamedTemplate {
  /** Its language, such as es. */
  language: string;
  /** Name of the template. */
  name: string;
  variables?: Record<string, string | number> | null;
}

export interface NewConsent {
  /** Time of the change; now if it is missing. */
  at?: string | null;
  /** The SID of a message, or another proof, such as the URL of a form. */
  evidence?: string | null;
  note?: string | null;
  /** One of your senders; or else service. */
  sender?: string | null;
  /** A Messaging Service (MG…), for all of its senders. */
  service?: string | null;
  /** Place where the user agreed or refused, such as `order form`. */
  source?: string | null;
  status: "opted_in" | "opted_out";
}

export interface NewHandoff {
  /** Only the conversation with this sender. */
  sender?: string | null;
  /** Time without a message from the user after which it ends, up to 720h; handoff.ttl if it is missing. */
  ttl?: string | null;
  /** null: the bot is silent. */
  url?: string | null;
}

export interface NewMessage {
  /** The account that sends, if it is not that of TWILIO_ACCOUNT_SID. */
  account_sid?: string | null;
  /** Text of the message. */
  body?: string | null;
  /** Answers below `body`, which is the question. A missing `id` is the title. */
  choices?: Array<string | {
    description?: string | null;
    id?: string | null;
    title: string;
  }> | null;
  /** Label of the button that opens a list. */
  choices_button?: string | null;
  /** Line below numbered choices. */
  choices_hint?: string | null;
  /** Comes back with the answer, as `choice.key`. */
  choices_key?: string | null;
  /** A template, which is a message of its own, or a button below the text. */
  content?: Template | NamedTemplate | Link | null;
  /** The sender. */
  from?: string | null;
  /** A location, which is a message of its own. */
  location?: Location | null;
  /** Public URLs of files. */
  media?: Array<string> | null;
  /** The Messaging Service, which chooses the sender unless `from` is set. */
  messaging_service_sid?: string | null;
  /** 5 minutes to 35 days ahead, through a Messaging Service. */
  send_at?: string | null;
  /** The recipient, such as whatsapp:+15550001111. */
  to: string;
}

export interface Problem {
  /** The cause. */
  message: string;
  /** A word for programs: opted_out, window_closed, no_opt_in, invalid_address, unknown_sender, template_not_approved, … */
  reason: string;
  /** Change that solves the problem. */
  remedy: string;
}

export interface QueuedMessage {
  id: number;
  state: MessageState;
}

export interface ReplyMessage {
  /** Text of the message. */
  body?: string | null;
  /** Answers below `body`, which is the question. A missing `id` is the title. */
  choices?: Array<string | {
    description?: string | null;
    id?: string | null;
    title: string;
  }> | null;
  /** Label of the button that opens a list. */
  choices_button?: string | null;
  /** Line below numbered choices. */
  choices_hint?: string | null;
  /** Comes back with the answer, as `choice.key`. */
  choices_key?: string | null;
  /** A template, which is a message of its own, or a button below the text. */
  content?: Template | NamedTemplate | Link | null;
  /** A location, which is a message of its own. */
  location?: Location | null;
  /** Public URLs of files. */
  media?: Array<string> | null;
}

export interface ServiceResponse {
  /** Text of the message. */
  body?: string | null;
  /** Answers below `body`, which is the question. A missing `id` is the title. */
  choices?: Array<string | {
    description?: string | null;
    id?: string | null;
    title: string;
  }> | null;
  /** Label of the button that opens a list. */
  choices_button?: string | null;
  /** Line below numbered choices. */
  choices_hint?: string | null;
  /** Comes back with the answer, as `choice.key`. */
  choices_key?: string | null;
  /** A template, which is a message of its own, or a button below the text. */
  content?: Template | NamedTemplate | Link | null;
  handoff?: HandoffStart | null;
  /** A location, which is a message of its own. */
  location?: Location | null;
  /** Public URLs of files. */
  media?: Array<string> | null;
  messages?: Array<ReplyMessage> | null;
}

export interface Template {
  /** HX… */
  sid: string;
  variables?: Record<string, string | number> | null;
}

/** An event, to handler.events_url. Its `type` says which. */
export type ReplyhookEvent = ConsentChangedEvent | HandoffEndedEvent | HandoffStartedEvent | MessageFailedEvent | MessageReceivedEvent | MessageStatusEvent;
