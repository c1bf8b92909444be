// Bots as services of replyhook: `bot` answers its requests, and `Client` calls its HTTP API.

import type { IncomingHttpHeaders, IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import type {
  Consent,
  ForwardedMessage,
  Handoff,
  Message,
  NewConsent,
  NewHandoff,
  NewMessage,
  QueuedMessage,
  ReplyhookEvent,
  ReplyMessage,
  ServiceResponse,
} from "./payloads";

export * from "./payloads";

/** The reply to a message: a text, a response, several messages, or nothing. */
export type BotReply = string | ServiceResponse | ReplyMessage[] | null | undefined | void;

export interface BotOptions {
  /** Is called for each event, if `handler.events_url` names this service. An event may come more than once. */
  onEvent?: (event: ReplyhookEvent) => unknown;
  /** Value of `handler.forward_secret`; FORWARD_SECRET of the environment by default. */
  secret?: string;
}

/** A listener for `http.createServer`, and for a route of Express without a parser of the body. */
export interface Bot {
  (request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Returns the response to a request with this body, exactly as it was received, for other frameworks. */
  handle(headers: IncomingHttpHeaders, body: Buffer): Promise<{ status: number; body: string }>;
}

/** Creates the service of a bot: it verifies each request, calls your function, and responds with the reply. */
export function bot(
  onMessage: ((message: ForwardedMessage) => BotReply | Promise<BotReply>) | null | undefined,
  options?: BotOptions,
): Bot;

/** Serves, on PORT of the environment or 3000 unless a port is given. */
export function serve(listener: RequestListener, port?: number, host?: string): Server;

/** Verifies the signature of a request (Standard Webhooks). `secret` is the value of `handler.forward_secret`. */
export function verify(secret: string, headers: IncomingHttpHeaders, body: Buffer | string): boolean;

/** A response of the API other than success. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly remedy: string;
  /** ID of the first message with the same key, after a 409. */
  readonly id?: number;
}

/** One of your senders, or a Messaging Service. */
export type Scope = { sender: string } | { service: string };

/** Calls the API. A call that failed without a response may have arrived: call again, `send` with the same key. */
export class Client {
  /** URL and token are by default REPLYHOOK_API_URL and REPLYHOOK_API_TOKEN of the environment. */
  constructor(options?: { url?: string; token?: string; timeoutMs?: number });
  /** Queues a message. Of several calls with one key, such as `order-42-ready`, only the first queues one. */
  send(message: NewMessage, key?: string): Promise<QueuedMessage>;
  message(id: number): Promise<Message>;
  recordConsent(address: string, consent: NewConsent): Promise<Consent>;
  /** Returns the consent for a sender or service, or the latest. */
  consent(address: string, scope?: Scope): Promise<Consent | undefined>;
  beginHandoff(address: string, handoff: NewHandoff): Promise<Handoff>;
  handoff(address: string, scope?: { sender: string }): Promise<Handoff | undefined>;
  endHandoff(address: string, scope?: { sender: string }): Promise<void>;
}
