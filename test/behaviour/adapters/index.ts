import express5 from 'express'
import express4 from 'express4'
import Koa3 from 'koa'
import Koa2 from 'koa2'
import { isShort } from '../../support/long-run.ts'
import type { Adapter, AdapterName } from './adapter.ts'
import { expressAdapter } from './express.ts'
import { fastifyAdapter } from './fastify.ts'
import { fetchAdapter, honoAdapter } from './fetch.ts'
import { koaAdapter } from './koa.ts'
import { koaPassportAdapter } from './koa-passport.ts'
import { nestAdapter } from './nest.ts'
import { passportAdapter } from './passport.ts'

/** Everything that the table runs against; the first is the one that the page shows. */
export const ADAPTERS: readonly Adapter[] = [
  expressAdapter('Express 5', express5),
  passportAdapter('Express 5, Passport', express5, 'fail'),
  passportAdapter('Express 5, Passport with errors', express5, 'error'),
  expressAdapter('Express 4', express4),
  passportAdapter('Express 4, Passport', express4, 'fail'),
  passportAdapter('Express 4, Passport with errors', express4, 'error'),
  koaAdapter('Koa 3', Koa3),
  koaAdapter('Koa 2', Koa2),
  koaPassportAdapter('Koa 3, koa-passport', Koa3, 'fail'),
  koaPassportAdapter('Koa 3, koa-passport with errors', Koa3, 'error'),
  nestAdapter('Nest 12 on Express'),
  nestAdapter('Nest 12 on Fastify'),
  fastifyAdapter(),
  fetchAdapter(),
  honoAdapter(),
]

/** The same code of ours as another of them, on another release or with another way to refuse: these run in soak. */
const VARIANTS: readonly AdapterName[] = [
  'Express 5, Passport with errors',
  'Express 4',
  'Express 4, Passport',
  'Express 4, Passport with errors',
  'Koa 2',
  'Koa 3, koa-passport with errors',
]

/** What this run tries. For the others, the page shows what is expected of them, which the other run proves. */
export const TRIED = ADAPTERS.filter(({ name }) => VARIANTS.includes(name) !== isShort)
