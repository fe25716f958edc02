import 'reflect-metadata'
import {
  All,
  type CanActivate,
  Controller,
  type ExecutionContext,
  type INestApplication,
  Module,
  Req,
  UseGuards,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import type { Express, Request, RequestHandler } from 'express'
import type { FastifyInstance } from 'fastify'
import type { RequestHook } from 'latchkey/fastify'
import { getAuth, LatchkeyModule, RequireKey } from 'latchkey/nest'
import { type Part, partsOf, type Surroundings } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import { describeWho } from '../who.ts'
import type { Adapter } from './adapter.ts'
import { readKeys } from './express.ts'
import { createExpressParts } from './express-parts.ts'
import { createFastifyParts } from './fastify.ts'

/** A middleware of Express, or a hook of Fastify: both end with a call of their last parameter. */
type Step = (request: never, response: never, done: (error?: unknown) => void) => unknown

/** What Nest runs on, as the table needs it. */
interface Platform {
  /** Every part of an application; what refuses hands its error on. */
  createParts(app: App, surroundings: Surroundings): Record<Part, readonly Step[]>
  create(module: object, app: App): Promise<INestApplication>
  /** Adds what runs before all guards. */
  use(site: INestApplication, step: Step): void
  listenerOf(site: INestApplication): Promise<ReturnType<Adapter['build']>>
}

const ON_EXPRESS: Platform = {
  createParts: (app, surroundings) => ({
    ...createExpressParts(app, surroundings, 'error'),
    keys: [readKeysOnExpress(app, surroundings, app.asks)],
    keysAgain: [readKeysOnExpress(app, surroundings, app.asksAgain)],
  }),
  async create(module, { proxies }) {
    const site = await NestFactory.create(module, { logger: false })
    if (proxies !== undefined) expressOf(site).set('trust proxy', proxies)
    return site
  },
  use: (site, step) => void site.use(step),
  listenerOf: async (site) => expressOf(site),
}

const ON_FASTIFY: Platform = {
  createParts(app, surroundings) {
    const parts = createFastifyParts(app, surroundings, 'error')
    return { ...parts, meanwhile: [...parts.meanwhile, showsOnRequest(app)] }
  },
  async create(module, { proxies = 0 }) {
    const trustProxy = proxies > 0 && ((_address: string, hop: number) => hop < proxies)
    return NestFactory.create<NestFastifyApplication>(module, new FastifyAdapter({ trustProxy }), {
      logger: false,
    })
  },
  use: (site, step) => void fastifyOf(site).addHook('onRequest', step as RequestHook),
  async listenerOf(site) {
    const fastify = fastifyOf(site)
    await fastify.ready()
    return (req, res) => fastify.routing(req, res)
  },
}

/** `LatchkeyModule`, with a decorator that says what the row asks for. */
export function nestAdapter(name: 'Nest 12 on Express' | 'Nest 12 on Fastify'): Adapter {
  const platform = name === 'Nest 12 on Express' ? ON_EXPRESS : ON_FASTIFY
  return {
    name,
    writesLowerCase: platform === ON_FASTIFY,
    async build(app, surroundings) {
      const parts = platform.createParts(app, surroundings)
      const [before, behind] = split(app)
      const site = await platform.create(createModule(app, surroundings, behind, parts), app)
      for (const part of before) for (const step of parts[part]) platform.use(site, step)
      await site.init()
      return platform.listenerOf(site)
    },
  }
}

/** Nest runs guards behind everything else: from the first guard on, all is a guard. */
function split(app: App): [Part[], Part[]] {
  const parts = partsOf(app).filter((part) => part !== 'route')
  const first = parts.findIndex((part) => ['keys', 'keysAgain', 'guard'].includes(part))
  return first === -1 ? [parts, []] : [parts.slice(0, first), parts.slice(first)]
}

// Decorators are called, not written, since each row has others.
function createModule(
  app: App,
  { keys, resolveUser }: Surroundings,
  behind: readonly Part[],
  parts: Record<Part, readonly Step[]>,
) {
  // What the module has no use for, a middleware does: keys that are optional, or read twice.
  const isOfModule = behind.includes('keys') && (app.keys ?? 'required') === 'required' && !app.asksAgain
  class Site {
    show(req: Request & { raw?: Request }) {
      // Hooks of Fastify show who is calling on the request of Node.
      return describeWho(getAuth(req), isOfModule ? req : (req.raw ?? req))
    }
  }
  const descriptor = Object.getOwnPropertyDescriptor(Site.prototype, 'show') as PropertyDescriptor
  const decorate = (decorator: MethodDecorator) => decorator(Site.prototype, 'show', descriptor)
  decorate(All())
  for (const part of behind) {
    if (part === 'keys' && isOfModule) decorate(RequireKey(app.asks ?? {}))
    else decorate(UseGuards(...parts[part].map(toGuard)))
  }
  Req()(Site.prototype, 'show', 0)
  Controller()(Site)
  class SiteModule {}
  Module({
    imports: [
      LatchkeyModule.forRoot({
        keys,
        ...app.reads,
        ...(resolveUser && { resolveUser }),
        globalGuard: isOfModule && !app.guardFirst,
        refuseWith: app.rendering ? 'error' : 'problem',
      }),
    ],
    controllers: [Site],
  })(SiteModule)
  return SiteModule
}

/** Without the handler that carries on where a refusal is not the end. */
function readKeysOnExpress(app: App, surroundings: Surroundings, asks: Asked = {}): RequestHandler {
  const [authenticate] = readKeys(app, surroundings, asks, 'error') as [RequestHandler]
  return (req, res, next) => authenticate(req, res, app.keys === 'overruled' ? () => next() : next)
}

function toGuard(step: Step): CanActivate {
  return {
    canActivate: (context: ExecutionContext) =>
      new Promise((resolve, reject) => {
        const http = context.switchToHttp()
        const done = (error?: unknown) => (error ? reject(error) : resolve(true))
        Promise.resolve(step(http.getRequest<never>(), http.getResponse<never>(), done)).catch(reject)
      }),
  }
}

/** Another guard of Nest puts its user on Fastify's request, where the hooks of the table put it on that of Node. */
function showsOnRequest({ meanwhile }: App): Step {
  return (request: { raw: { user?: unknown }; user?: unknown }, _reply: never, done) => {
    if (meanwhile === 'claims a session')
      Object.assign(request, { authMethod: 'session', apiKey: { id: 'claimed' } })
    else if (meanwhile) request.user = request.raw.user
    done()
  }
}

function expressOf(site: INestApplication): Express {
  return site.getHttpAdapter().getInstance()
}

function fastifyOf(site: INestApplication): FastifyInstance {
  return site.getHttpAdapter().getInstance()
}
