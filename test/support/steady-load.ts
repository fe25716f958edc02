import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import express from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'

/** One request of a load, and how it ended. */
export interface Answered {
  readonly status: number
  readonly startedAt: number
  readonly tookMs: number
  /** For how long in the meantime this process did not get to its timers. */
  readonly busyMs: number
}

export interface SteadyLoad {
  /** What has been answered since it was last asked. */
  take(): Answered[]
  /** Resolves once `count` more requests were answered. */
  answered(count: number): Promise<void>
  stop(): Promise<Answered[]>
}

/**
 * An Express application that admits `key`, under `callers` who each send a request as soon as the one before was
 * answered, and then wait a moment: over real HTTP, in this process.
 */
export async function startLoad(keys: ApiKeys, key: string, callers = 8): Promise<SteadyLoad> {
  const app = express()
  app.get('/', apiKeyAuth(keys), (_req, res) => void res.json({}))
  const server = createServer(app)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const agent = new Agent({ keepAlive: true, maxSockets: callers })
  const pauses = watchPauses()
  let answered: Answered[] = []
  let total = 0
  let isStopping = false

  async function call(): Promise<void> {
    while (!isStopping) {
      const startedAt = performance.now()
      const status = await get(port, key, agent)
      const endedAt = performance.now()
      answered.push({
        status,
        startedAt,
        tookMs: endedAt - startedAt,
        busyMs: pauses.between(startedAt, endedAt),
      })
      total += 1
      await setTimeout(1)
    }
  }

  const running = Promise.all(Array.from({ length: callers }, call))

  function take(): Answered[] {
    const taken = answered
    answered = []
    return taken
  }

  return {
    take,
    async answered(count) {
      const until = total + count
      while (total < until) await setTimeout(5)
    },
    async stop() {
      isStopping = true
      await running
      agent.destroy()
      server.close()
      pauses.stop()
      return take()
    },
  }
}

function get(port: number, key: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', agent, headers: { 'X-Api-Key': key } }, (res) => {
      res.resume()
      res.on('end', () => resolve(res.statusCode ?? 0))
    })
    sent.on('error', reject)
    sent.end()
  })
}

const TICK_MS = 2
const REMEMBERED = 20_000

/** Notes when this process did not get to its timers in time. */
function watchPauses() {
  const pauses: { at: number; ms: number }[] = []
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    const ms = now - last - TICK_MS
    if (ms > 1) pauses.push({ at: now, ms })
    if (pauses.length > REMEMBERED) pauses.splice(0, REMEMBERED / 2)
    last = now
  }, TICK_MS)

  return {
    /** The sum of the pauses that lay, wholly or in part, in this stretch of time. */
    between(from: number, to: number): number {
      const now = performance.now()
      const open = Math.max(0, now - last - TICK_MS)
      let sum = open
      for (let i = pauses.length - 1; i >= 0; i--) {
        const pause = pauses[i] as { at: number; ms: number }
        if (pause.at < from) break
        if (pause.at - pause.ms <= to) sum += pause.ms
      }
      return sum
    },
    stop: () => clearInterval(timer),
  }
}
