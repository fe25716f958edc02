import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  type DynamicModule,
  type FactoryProvider,
  Inject,
  type MiddlewareConsumer,
  Module,
  type ModuleMetadata,
  type NestModule,
  Optional,
} from '@nestjs/common'
import { ApplicationConfig } from '@nestjs/core'
import type { ApiKeys } from '../core/api-keys.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkObject } from '../internal/options.ts'
import {
  API_OPTIONS,
  createKeyManagementApi,
  type KeyManagementApi,
  type KeyManagementApiOptions,
} from './key-management-api.ts'
import { checkMountPath, relativeTo } from './mount-path.ts'
import { sendAnswer } from './send-answer.ts'

export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/**
 * What middlewares of Nest are handed: on Express its request; on Fastify the request of Node, with what Fastify knows of the client's
 * address.
 */
export interface MiddlewareRequest extends IncomingMessage {
  readonly ip?: string
}

/** Options of `ApiKeyRouterModule`. */
export interface ApiKeyRouterModuleOptions<Request extends object = MiddlewareRequest>
  extends KeyManagementApiOptions<Request> {
  /** The keys that are managed: the result of `createApiKeys`. */
  keys: ApiKeys
  /**
   * The path to answer under, after the global prefix of the application.
   *
   * @default '/api-keys'
   */
  path?: string
  /**
   * Reads the client's address, for keys with `allowedIps`.
   *
   * @default (req) => req.ip, which follows `trust proxy` of Express and `trustProxy` of Fastify
   */
  ip?: (request: Request) => string | undefined
}

/** The options of `ApiKeyRouterModule` as a provider makes them. */
export interface ApiKeyRouterModuleAsyncOptions<Request extends object = MiddlewareRequest>
  extends Pick<ModuleMetadata, 'imports'>,
    Pick<FactoryProvider, 'inject'> {
  /** Returns the options, given what `inject` names. */
  useFactory: (...dependencies: never[]) => Awaitable<ApiKeyRouterModuleOptions<Request>>
}

/**
 * Lets clients manage keys over HTTP, on Express and on Fastify. It is a middleware: no guard runs before it, so that `actor` decides
 * alone. The middlewares of the modules that import it run before it.
 */
export class ApiKeyRouterModule implements NestModule {
  /**
   * @throws TypeError when an option is wrong or unknown, naming it.
   * @example
   * ApiKeyRouterModule.forRoot({
   *   keys,
   *   actor: (req) => {
   *     const auth = getAuth<User>(req)
   *     return auth.method === 'session' ? { id: auth.user.id, owners: [{ type: 'user', id: auth.user.id }] } : null
   *   },
   * })
   */
  static forRoot<Request extends object = MiddlewareRequest>(
    options: ApiKeyRouterModuleOptions<Request>,
  ): DynamicModule {
    const router = createRouter(options)
    return moduleOf({ provide: ROUTER, useFactory: () => router })
  }

  /** The same with options that a provider makes. What `forRoot` would throw, the application throws when it starts. */
  static forRootAsync<Request extends object = MiddlewareRequest>({
    imports = [],
    inject = [],
    useFactory,
  }: ApiKeyRouterModuleAsyncOptions<Request>): DynamicModule {
    const make = useFactory as (...dependencies: unknown[]) => Awaitable<ApiKeyRouterModuleOptions<Request>>
    return moduleOf(
      {
        provide: ROUTER,
        inject,
        useFactory: async (...dependencies: unknown[]) => createRouter(await make(...dependencies)),
      },
      imports,
    )
  }

  private readonly router: Router

  /** Nest calls it. */
  constructor(
    router?: unknown,
    private readonly config?: ApplicationConfig,
  ) {
    if (!router) throw new Error('import ApiKeyRouterModule.forRoot({ keys, actor }), not ApiKeyRouterModule')
    this.router = router as Router
  }

  /** Nest calls it. */
  configure(consumer: MiddlewareConsumer): void {
    const { path, api } = this.router
    const prefix = (this.config?.getGlobalPrefix() ?? '').replace(/^\/?(?=.)/, '/').replace(/\/+$/, '')
    const mounts = [`${prefix}${path}`, path]

    function manageApiKeys(req: NestRequest, res: ServerResponse, next: (error?: unknown) => void): void {
      const url = urlOf(req, mounts)
      if (url === null) {
        next()
        return
      }
      api
        .handle({ method: req.method ?? '', url, source: req, parsedBody: req.body })
        .then((answer) => sendAnswer(res, answer))
        .catch(next)
    }

    // Releases of Nest write "everything below" in different ways. No operation is deeper.
    consumer.apply(manageApiKeys).forRoutes(path, `${path}/:first`, `${path}/:first/:second`)
  }
}

const ROUTER = Symbol('router')

interface Router {
  readonly path: string
  readonly api: KeyManagementApi<object>
}

/** What this reads of a request of Express, or of one of Node on Fastify. */
interface NestRequest extends IncomingMessage {
  readonly body?: unknown
  /** Express's: the path that it has taken from `url`. */
  readonly baseUrl?: unknown
  readonly originalUrl?: string
}

Module({})(ApiKeyRouterModule)
Optional()(ApiKeyRouterModule, undefined, 0)
Inject(ROUTER)(ApiKeyRouterModule, undefined, 0)
Inject(ApplicationConfig)(ApiKeyRouterModule, undefined, 1)

function createRouter<Request extends object>(options: ApiKeyRouterModuleOptions<Request>): Router {
  checkObject('options', options, ['keys', 'path', ...API_OPTIONS])
  const { keys, path = '/api-keys', ...rest } = options
  const mount = checkMountPath(path)
  const ip = rest.ip ?? ((request: Request) => (request as MiddlewareRequest).ip)
  const api = createKeyManagementApi<Request>(keys, { ...rest, ip })
  return { path: mount, api: api as KeyManagementApi<object> }
}

let made = 0

function moduleOf(router: FactoryProvider, imports: DynamicModule['imports'] = []): DynamicModule {
  made += 1
  // By the number, Nest 10 tells two modules apart whose functions have the same text.
  return { module: ApiKeyRouterModule, imports, providers: [router, { provide: 'number', useValue: made }] }
}

/** Path and query below the mount path, where Fastify leaves some of it in `originalUrl` only; null for another path. */
function urlOf(
  { url = '/', baseUrl, originalUrl = url }: NestRequest,
  mounts: readonly string[],
): string | null {
  if (typeof baseUrl === 'string') return url
  const [path = '', ...query] = originalUrl.split('?')
  const relative = mounts.map((mount) => relativeTo(mount, path)).find((found) => found !== null)
  return relative === undefined || relative === null ? null : [relative, ...query].join('?')
}
