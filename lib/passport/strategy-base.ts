import { Strategy as PassportStrategy } from 'passport-strategy'

/** As much of a request as Passport and these strategies put to use. */
export interface PassportRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly ip?: string | undefined
  readonly socket?: { readonly remoteAddress?: string | undefined } | undefined
  /** Passport's, or the application's own. */
  logIn?(user: unknown, options: unknown, done: unknown): unknown
  /** Express's way on from here, whichever middleware runs. */
  next?: ((error: unknown) => void) | undefined
}

/**
 * The actions that Passport hangs on a strategy for one request. Read them at once: they are closures, but where the
 * application hands Passport the strategy itself, the next request overwrites them before this one is decided.
 */
export interface Actions {
  success(user: unknown, info?: unknown): void
  /** A challenge that is a string is sent. */
  fail(challenge: string | object | null | undefined, status?: number): void
  error(error: unknown): void
}

/** What `passport.use` asks of a strategy. Declared here, so that no consumer needs the types of another package. */
interface PassportsStrategy {
  name?: string
}

// Passport runs `authenticate` on `Object.create(strategy)`, where ES `#private` members cannot be read: hence
// TypeScript's `private` in strategies, and nowhere else.
export const StrategyBase = PassportStrategy as unknown as new () => PassportsStrategy
