import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import express from 'express'
import { Redis } from 'ioredis'
import { createApiKeys } from 'latchkey'
import { apiKeyRouter } from 'latchkey/management/express'
import { redisRateLimiter } from 'latchkey/redis'
import { openStore } from './open-store.ts'
import { answerTasks, readSettings } from './task-process.ts'

/** What a service is started with. */
export interface AuthSettings {
  readonly databaseUrl: string
  readonly redisUrl: string
  /** What the names of everything in Redis begin with. */
  readonly name: string
  readonly port: number
  /** Who sends it as `Authorization: Bearer …` manages all keys. */
  readonly adminToken: string
}

/** The service that has the keys, in PostgreSQL, counts their use in Redis, and verifies them for others. */
const { databaseUrl, redisUrl, name, port, adminToken } = readSettings<AuthSettings>()
const { store } = openStore(databaseUrl)
const keys = createApiKeys({
  store,
  // A call that is late is an error here, and never one that is counted elsewhere.
  rateLimiter: redisRateLimiter(new Redis(redisUrl), {
    keyPrefix: name,
    timeoutMs: 30_000,
    onUnavailable: 'closed',
  }),
  prefix: 'acme_test',
  timeoutMs: 30_000,
})
const app = express()
app.use(
  '/api-keys',
  apiKeyRouter(keys, {
    actor: (req) =>
      req.get('Authorization') === `Bearer ${adminToken}` ? { id: 'admin', admin: true } : null,
    // The load is what is tested, and most of it is bad keys.
    requestLimit: false,
  }),
)
const server = createServer(app)

const tasks = {
  /** Listens at the port, as soon as nobody else does: a client that was refused there may hold it for a moment. */
  async openPort(): Promise<void> {
    for (;;) {
      try {
        await once(server.listen(port, '127.0.0.1'), 'listening')
        return
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
        await setTimeout(20)
      }
    }
  },

  /** Refuses connections, and ends those there are, in the middle of whatever they do. */
  async closePort(): Promise<void> {
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  },
}

export type AuthTasks = typeof tasks

answerTasks(tasks)
