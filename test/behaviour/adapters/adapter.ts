import type { RequestListener } from 'node:http'
import type { Surroundings } from '../pipeline.ts'
import type { App } from '../row.ts'

/** Turns the description of an application into one. */
export interface Adapter {
  readonly name: AdapterName
  /** Whether it sends the names of header fields in lower case, as web `Headers` do. */
  readonly writesLowerCase?: boolean
  build(app: App, surroundings: Surroundings): RequestListener | Promise<RequestListener>
}

export type AdapterName =
  | `Express ${4 | 5}`
  | `Express ${4 | 5}, Passport`
  | `Express ${4 | 5}, Passport with errors`
  | `Koa ${2 | 3}`
  | 'Koa 3, koa-passport'
  | 'Koa 3, koa-passport with errors'
  | 'Nest 12 on Express'
  | 'Nest 12 on Fastify'
  | 'Fastify 5'
  | 'fetch, node:http'
  | 'fetch, Hono'
