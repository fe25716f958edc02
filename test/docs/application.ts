/**
 * What the code of the guides takes from the application that it is part of. A block is a module of its own; what it does not
 * declare itself is here: as a global, or as a file that its blocks import.
 */
export const APPLICATION: Readonly<Record<string, string>> = {
  'globals.ts': `
import type { Express, Request, RequestHandler, Response } from 'express'
import type { Redis } from 'ioredis'
import type Koa from 'koa'
import type { ApiKey, ApiKeys, KeyStore, Owner, Permissions, RateLimiter, Tickets } from 'latchkey'
import type { BetterAuthRow } from 'latchkey/import'
import type { Actor } from 'latchkey/management'
import type { Pool } from 'pg'

declare global {
  namespace Express {
    interface User {
      id: string
      isAdmin: boolean
    }
  }
  const app: Express
  const koa: Koa
  const keys: ApiKeys
  const store: KeyStore
  const rateLimiter: RateLimiter
  const tickets: Tickets
  const redis: Redis
  const pool: Pool
  const users: {
    find(id: string): { id: string } | null
    findByKey(apiKey: string, path?: string): Promise<{ id: string } | null>
    isActive(id: string): boolean
  }
  const list: RequestHandler
  const create: RequestHandler
  const remove: RequestHandler
  const secret: string
  const pepper: string
  function planOf(ownerId: string): Promise<string>
  const exportAll: (signal?: AbortSignal) => Promise<boolean>
  function stream(req: Request): AsyncIterable<{ text: string; tokens: number }>
  function complete(req: Request): Promise<{ text: string; tokens: number }>
  const yourStore: () => KeyStore
  const rows: AsyncIterable<BetterAuthRow>
  const apiKey: ApiKey
  const owner: Owner
  const id: string
  const key: string
  function rowsOf(table: string): AsyncGenerator<any>
  const newPepper: string
  function remind(who: string, text: string): Promise<void>
  function projectOf(documentId: string): Promise<string>
  function permissionsOf(id: string): Promise<Permissions>
  function actor(request: object): Actor | null
  const sessions: { userOf(cookie: string | null): Promise<{ id: string } | null> }
  function listProjects(request: globalThis.Request): Promise<globalThis.Response>
}
`,
  'keys.ts': `import type { ApiKeys } from 'latchkey'\nexport declare const keys: ApiKeys`,
  'run-app.ts': 'export declare function runApp(event: object, context: object): Promise<object>',
  'platform.ts': `
export declare function ipAddress(request: Request): string | undefined
export declare function waitUntil(work: Promise<unknown>): void
`,
  'server.ts': `import type { Server } from 'node:http'\nexport declare const server: Server`,
  'projects.ts': 'export declare function listProjects(request: Request): Promise<Response>',
  'my-store.ts': `
import type { KeyStore } from 'latchkey'

export declare function connect(): Promise<{ drop(): Promise<void> }>
export declare function myStore(database?: object): KeyStore
`,
  'latchkey-tables.ts': `
export * from '../../examples/drizzle/latchkey-tables.ts'
`,
  'my-limiter.ts': `
import type { RateLimiter } from 'latchkey'
import type { LimiterClock } from 'latchkey/testing'

export declare function connect(): Promise<{ clock: LimiterClock; drop(): Promise<void> }>
export declare function myLimiter(server: { clock: LimiterClock }): RateLimiter
`,
  'create-app.ts': `
import type { Express } from 'express'
import type { ApiKeyVerifier } from 'latchkey'

export declare function createApp(keys: ApiKeyVerifier): Express
`,
}
