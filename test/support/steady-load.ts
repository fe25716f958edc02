import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import express from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'

/** One request of a load. */
export interface Asked {
  /** Sent as `X-Api-Key`. */
  readonly key: string
  /** @default '/' */
  readonly path?: string
}

/** How a request ended. */
export interface Answered<Question extends Asked = Asked> {
  readonly asked: Question
  readonly status: number
  /** Of a problem body: one that says it is one. */
  readonly code: string | undefined
  readonly startedAt: number
  readonly tookMs: number
  /** For how long in the meantime this process did not get to its timers. */
  readonly busyMs: number
}

export interface SteadyLoad<Question extends Asked = Asked> {
  /** What has been answered since it was last asked. */
  take(): Answered<Question>[]
  /** Resolves once `count` more requests were answered, of those that match. */
  answered(count: number, matches?: (answer: Answered<Question>) => boolean): Promise<void>
  stop(): Promise<Answered<Question>[]>
}

/** An Express application in this process that admits `key`, under so many callers, over real HTTP. */
export async function startLoad(keys: ApiKeys, key: string, callers = 8): Promise<SteadyLoad> {
  const app = express()
  app.get('/', apiKeyAuth(keys), (_req, res) => void res.json({}))
  const server = createServer(app)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const load = callSteadily(
    port,
    Array.from({ length: callers }, () => () => ({ key })),
  )
  return {
    ...load,
    async stop() {
      const answered = await load.stop()
      server.close()
      return answered
    },
  }
}

/**
 * Callers who each send a request, the one that they choose next, as soon as the one before was answered and a moment has
 * passed.
 */
export function callSteadily<Question extends Asked>(
  port: number,
  callers: readonly (() => Question)[],
  pauseMs = 1,
): SteadyLoad<Question> {
  const agent = new Agent({ keepAlive: true, maxSockets: callers.length })
  const pauses = watchPauses()
  const waiting = new Set<(answer: Answered<Question>) => void>()
  let answered: Answered<Question>[] = []
  let isStopping = false

  async function call(choose: () => Question): Promise<void> {
    while (!isStopping) {
      const asked = choose()
      const startedAt = performance.now()
      const { status, code } = await get(port, asked, agent)
      const endedAt = performance.now()
      const answer = {
        asked,
        status,
        code,
        startedAt,
        tookMs: endedAt - startedAt,
        busyMs: pauses.between(startedAt, endedAt),
      }
      answered.push(answer)
      for (const look of waiting) look(answer)
      await setTimeout(pauseMs)
    }
  }

  const running = Promise.all(callers.map(call))
  // Whoever waits for it, or stops it, hears of it.
  const failed = new Promise<never>((_resolve, reject) => running.catch(reject))
  failed.catch(() => {})

  function take(): Answered<Question>[] {
    const taken = answered
    answered = []
    return taken
  }

  return {
    take,
    async answered(count, matches = () => true) {
      let left = count
      let look: (answer: Answered<Question>) => void = () => {}
      const seen = new Promise<void>((resolve) => {
        look = (answer) => {
          if (matches(answer)) left -= 1
          if (left <= 0) resolve()
        }
        waiting.add(look)
      })
      await Promise.race([seen, failed]).finally(() => waiting.delete(look))
    },
    async stop() {
      isStopping = true
      await running.finally(() => {
        agent.destroy()
        pauses.stop()
      })
      return take()
    },
  }
}

function get(
  port: number,
  { key, path = '/' }: Asked,
  agent: Agent,
): Promise<Pick<Answered, 'status' | 'code'>> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, path, host: '127.0.0.1', agent, headers: { 'X-Api-Key': key } }, (res) => {
      const isProblem = res.headers['content-type']?.startsWith('application/problem+json')
      let text = ''
      res.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      res.on('error', reject)
      res.on('end', () => {
        resolve({ status: res.statusCode ?? 0, code: isProblem ? JSON.parse(text).code : undefined })
      })
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
