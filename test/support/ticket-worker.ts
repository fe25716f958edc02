import { Redis } from 'ioredis'
import { createTickets } from 'latchkey'
import { redisTicketStore } from 'latchkey/redis'
import { answerTasks, readSettings } from './task-process.ts'

export interface TicketWorkerSettings {
  readonly redisUrl: string
  readonly keyPrefix: string
}

const { redisUrl, keyPrefix } = readSettings<TicketWorkerSettings>()
const tickets = createTickets({ store: redisTicketStore(new Redis(redisUrl), { keyPrefix }) })

const tasks = {
  /** Redeems each ticket so many times, all at once; answers how often each was good. */
  async redeem(all: readonly string[], times: number, origin: string): Promise<number[]> {
    return Promise.all(
      all.map(async (ticket) => {
        const tries = Array.from({ length: times }, () => tickets.redeem(ticket, origin))
        return (await Promise.all(tries)).filter((redeemed) => redeemed !== null).length
      }),
    )
  },
}

export type TicketTasks = typeof tasks

answerTasks(tasks)
