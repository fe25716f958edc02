import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { createTickets } from 'latchkey'
import { apiKeyAuth } from 'latchkey/fetch'
import { redisTicketStore } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { startTaskProcess } from '../support/task-process.ts'
import { createTestKeys } from '../support/test-keys.ts'
import type { TicketTasks } from '../support/ticket-worker.ts'

const ORIGIN = 'https://app.example.com'

describe('tickets in Redis', () => {
  it('are redeemed once each, though four processes try each of them at once', async () => {
    const settings = { redisUrl: inject('redisUrl'), keyPrefix: `tickets:${randomUUID()}` }
    const client = new Redis(settings.redisUrl)
    onTestFinished(() => client.disconnect())
    const tickets = createTickets({ store: redisTicketStore(client, { keyPrefix: settings.keyPrefix }) })
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const request = new Request('http://localhost/', { headers: { 'X-Api-Key': key } })
    await apiKeyAuth(keys)(request)
    const workers = Array.from({ length: 4 }, () =>
      startTaskProcess<TicketTasks>('ticket-worker.ts', settings),
    )
    await Promise.all(workers.map((worker) => worker.run('redeem', [], 1, ORIGIN)))
    for (let round = 0; round < 5; round += 1) {
      const issued = await Promise.all(
        Array.from({ length: 200 }, () => tickets.issue(request, { origin: ORIGIN })),
      )
      const all = issued.map(({ ticket }) => ticket)
      const won = await Promise.all(workers.map((worker) => worker.run('redeem', all, 5, ORIGIN)))
      expect(all.map((_, i) => won.reduce((sum, counts) => sum + (counts[i] as number), 0))).toEqual(
        all.map(() => 1),
      )
    }
    await Promise.all(workers.map((worker) => worker.kill()))
  })
})
