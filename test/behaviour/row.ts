import type { ApiKeysOptions, ErrorCode, IssueOptions, PermissionRequirement } from 'latchkey'
import type { ApiKeyAuthOptions, Auth, requireSession } from 'latchkey/express'
import type { Given } from './givens.ts'
import type { LimiterKind } from './limiters.ts'

/** One line of the table: what is asked of an application, and what comes of it under every framework. */
export interface Row {
  /** What happens; the page shows it as a heading. */
  readonly title: string
  /** Options of `createApiKeys`. */
  readonly keys?: Partial<Omit<ApiKeysOptions, 'store' | 'clock' | 'rateLimiter' | 'onEvent'>>
  /** Who counts what keys spend; a limiter in memory unless this says otherwise. */
  readonly limiter?: LimiterKind
  /** Settings of `<key>`, which is Alice's unless they say otherwise. */
  readonly key?: Partial<IssueOptions>
  readonly app?: App
  /** What has come to pass before the first request, in this order. */
  readonly given?: readonly Given[]
  readonly steps: readonly Step[]
}

export interface Step {
  readonly ask: Request
  readonly expect: Outcome
  /** How many such requests are sent at once, together with those of the other steps; each with a key of its own. */
  readonly times?: number
}

/** Header lines may hold `<key>` and the other names of `tokens.ts`. */
export interface Request {
  readonly method?: 'GET' | 'HEAD' | 'OPTIONS' | 'POST'
  readonly path?: string
  readonly lines: readonly string[]
  /** Sent on the connection of the steps before. */
  readonly onSameConnection?: boolean
}

/** An application, in words that every framework can put into practice. */
export interface App {
  /**
   * Whether a key is needed: `required` is the default, with `none` no middleware reads keys, and with `overruled` a
   * refusal is not the end, as where another strategy follows: what guards make of the request is what counts.
   */
  readonly keys?: 'required' | 'optional' | 'overruled' | 'none'
  readonly reads?: Pick<
    ApiKeyAuthOptions,
    'headers' | 'scheme' | 'bearer' | 'realm' | 'prefix' | 'rateLimitHeaders'
  >
  /** What a middleware before the keys makes of header fields, by their names in lower case; null deletes one. */
  readonly rewrites?: Readonly<Record<string, string | readonly string[] | null>>
  /** Whom a key stands for; its owner unless this says otherwise. */
  readonly finds?: 'a user' | 'nobody' | 'a fault'
  readonly asks?: Asked
  /** What a second authentication behind the first asks of the same request. */
  readonly asksAgain?: Asked
  /** A login session: where `markSession()` is mounted, and the session's user restored. */
  readonly session?: 'before the keys' | 'after the keys' | 'unmarked'
  readonly guard?: GuardCall
  /** Puts the guard before everything that authenticates, where it is a mistake. */
  readonly guardFirst?: boolean
  /** What another middleware does between the authentication and the guard. */
  readonly meanwhile?: 'logs out' | 'claims a session' | 'exchanges the user' | 'sets a user'
  /** Hands refusals on as errors that no handler of ours answers: the framework's own does. */
  readonly rendering?: 'the framework’s'
  /** How many proxies are trusted. */
  readonly proxies?: number
  /** Lets `https://app.example` call, by the usual middleware, mounted first. */
  readonly cors?: boolean
}

/** Of what every framework hands on. */
type PermissionsOfRequest = (request: { url: string }) => PermissionRequirement

export interface Asked {
  readonly permissions?: PermissionRequirement | PermissionsOfRequest
  readonly cost?: number
}

export type GuardCall =
  | { readonly name: 'requireSession'; readonly with?: Parameters<typeof requireSession>[0] }
  | {
      readonly name: 'requireAuth'
      readonly with?: { accept?: readonly ('apikey' | 'session' | 'other')[] }
      readonly keys?: WhoseKeys
    }
  | {
      readonly name: 'requireApiKey'
      readonly with?: { permissions?: PermissionRequirement }
      readonly keys?: WhoseKeys
    }
  | {
      readonly name: 'requirePermissions'
      readonly permissions: PermissionRequirement | PermissionsOfRequest
      readonly with?: { accept?: readonly ('session' | 'other')[] }
      readonly keys?: WhoseKeys
    }

/** Names, for a guard, the keys that the application verifies with, or others. */
export type WhoseKeys = 'these' | 'others'

/** All that comes of one request. Nothing else may come of it. */
export interface Outcome {
  readonly status: number
  /** Every header field, but those that frameworks send of their own. */
  readonly fields: Readonly<Record<string, string>>
  readonly body: string
  /** In their order: type, code and reason, or type and operation. */
  readonly events: readonly string[]
  readonly store: readonly string[]
  readonly limiter: readonly string[]
  /** Who the request is, when it has been answered. */
  readonly who: Who
  /** The code of the problem that it is answered with, where it is refused. */
  readonly code?: ErrorCode
  /** Whether it is so because of the lines that were sent, which only Node keeps beside the fields. */
  readonly isByRawHeaders?: true
  /** Who refuses it, where that is not what reads the keys. */
  readonly by?: 'guard'
}

/** What `getAuth` and the views of it say. */
export interface Who {
  readonly method: Auth['method']
  readonly code?: string
  readonly user?: unknown
  /** The id of the key that was verified. */
  readonly key?: string
  /** What `user`, `authMethod` and `apiKey` of the request show, where that is something else. */
  readonly shows?: { readonly user?: unknown; readonly authMethod?: string; readonly key?: string }
}
