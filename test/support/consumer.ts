import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type RequestHandler } from 'express'
import type { ApiKeyEvent } from 'latchkey'
import { createApiKeysClient, isApiKeysClientError } from 'latchkey/client'
import { apiKeyAuth } from 'latchkey/express'
import { remoteApiKeys } from 'latchkey/remote'
import { answerTasks, readSettings } from './task-process.ts'

/** What a consumer is started with. */
export interface ConsumerSettings {
  /** Where the routes of the service are. */
  readonly baseUrl: string
  /** The consumer's own key. */
  readonly key: string
  readonly cacheMs: number
  readonly timeoutMs: number
  /** How often a timer ticks by which requests are measured. */
  readonly tickMs: number
}

/** A fault that was told, and what the service had answered where it had. */
export interface ToldFault {
  readonly operation: string
  readonly code: string | undefined
  readonly responseStatus: number | null
}

/** An application behind keys that another service verifies. */
const settings = readSettings<ConsumerSettings>()
let { key } = settings
let faults: ToldFault[] = []
const client = createApiKeysClient({
  baseUrl: settings.baseUrl,
  key: () => key,
  timeoutMs: settings.timeoutMs,
})
const { cacheMs } = settings
const app = express()
const answer: RequestHandler = (_req, res) => void res.json({})
app.use(countTicks(settings.tickMs))
app.get('/cached', apiKeyAuth(remoteApiKeys(client, { cacheMs, onEvent })), answer)
app.get('/fresh', apiKeyAuth(remoteApiKeys(client, { cacheMs: false, onEvent })), answer)
app.get('/charged', apiKeyAuth(remoteApiKeys(client, { cacheMs, charge: true, onEvent })), answer)
const server = createServer(app)

function onEvent(event: ApiKeyEvent): void {
  if (event.type !== 'fault') return
  const { operation, error } = event
  const told = isApiKeysClientError(error) ? error : null
  faults.push({ operation, code: told?.code, responseStatus: told?.responseStatus ?? null })
}

let mostTicks = 0

/**
 * Tells for how many ticks of a timer a request was under way. However slow the machine is, a tick comes no sooner than it
 * should, and no later than what else is due: a request that sees many of them has not been waiting for the processor.
 */
function countTicks(everyMs: number): RequestHandler {
  let ticks = 0
  setInterval(() => {
    ticks += 1
  }, everyMs)
  return (_req, res, next) => {
    const before = ticks
    res.once('finish', () => {
      mostTicks = Math.max(mostTicks, ticks - before)
    })
    next()
  }
}

const tasks = {
  /** Answers the port on which it listens. */
  async listen(): Promise<number> {
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return (server.address() as AddressInfo).port
  },

  /** Uses another key of its own from now on. */
  useKey(other: string): void {
    key = other
  },

  /** What was told since it was last asked, and the ticks of the request that saw most. */
  take(): { faults: ToldFault[]; mostTicks: number } {
    const taken = { faults, mostTicks }
    faults = []
    mostTicks = 0
    return taken
  },
}

export type ConsumerTasks = typeof tasks

answerTasks(tasks)
