import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  All,
  Controller,
  type DynamicModule,
  type FactoryProvider,
  Inject,
  Module,
  type ModuleMetadata,
  Optional,
  Req,
  Res,
  type Type,
} from '@nestjs/common'
import type { ApiKeys } from '../core/api-keys.ts'
import type { ReplyLike } from '../http/send-problem.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { Public } from '../nest/decorators.ts'
import { addressOf, createExchange, type HttpRequest } from '../nest/http-exchange.ts'
import { API_KEYS } from '../nest/tokens.ts'
import {
  API_OPTIONS,
  createKeyManagementApi,
  type KeyManagementApi,
  type KeyManagementApiOptions,
} from './key-management-api.ts'
import { checkMountPath } from './mount-path.ts'
import { sendAnswer, sendAnswerInReply } from './send-answer.ts'

export type { HttpRequest } from '../nest/http-exchange.ts'
export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/** Options of `ApiKeyRouterModule`. `Request` is the request of Express or of Fastify. */
export interface ApiKeyRouterModuleOptions<Request extends object = HttpRequest>
  extends KeyManagementApiOptions<Request> {
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
export interface ApiKeyRouterModuleAsyncOptions<Request extends object = HttpRequest>
  extends Pick<ModuleMetadata, 'imports'>,
    Pick<FactoryProvider, 'inject'>,
    Pick<ApiKeyRouterModuleOptions<Request>, 'path'> {
  /** Returns the options, given what `inject` names. */
  useFactory: (...dependencies: never[]) => Awaitable<Omit<ApiKeyRouterModuleOptions<Request>, 'path'>>
}

/**
 * Lets clients manage the keys of `LatchkeyModule` over HTTP, on Express and on Fastify. Its routes are public to `LatchkeyGuard`:
 * `actor` decides. Other guards of the application run before it.
 */
export class ApiKeyRouterModule {
  /**
   * What is wrong with the values of options, the application throws when it starts.
   *
   * @throws TypeError when an option is unknown, or the path is wrong.
   * @example
   * ApiKeyRouterModule.forRoot({
   *   actor: (req) => {
   *     const auth = getAuth<User>(req)
   *     return auth.method === 'session' ? { id: auth.user.id, owners: [{ type: 'user', id: auth.user.id }] } : null
   *   },
   * })
   */
  static forRoot<Request extends object = HttpRequest>(
    options: ApiKeyRouterModuleOptions<Request>,
  ): DynamicModule {
    checkObject('options', options, ['path', ...API_OPTIONS])
    const { path, ...others } = options
    return moduleOf(path, { provide: OPTIONS, useFactory: () => others })
  }

  /**
   * The same with options that a provider makes. What is wrong with them, the application throws when it starts.
   *
   * @throws TypeError when an option is unknown, or the path is wrong.
   * @example
   * ApiKeyRouterModule.forRootAsync({
   *   imports: [OrganisationsModule],
   *   inject: [Organisations],
   *   useFactory: (organisations: Organisations) => ({ actor: (req) => organisations.actorOf(req) }),
   * })
   */
  static forRootAsync<Request extends object = HttpRequest>(
    options: ApiKeyRouterModuleAsyncOptions<Request>,
  ): DynamicModule {
    checkObject('options', options, ['path', 'imports', 'inject', 'useFactory'])
    const { path, imports, inject = [], useFactory } = options
    checkFunction('useFactory', useFactory)
    return moduleOf(path, { provide: OPTIONS, inject, useFactory }, imports)
  }

  /** Nest calls it. */
  constructor(options?: unknown) {
    if (!options) throw new Error('import ApiKeyRouterModule.forRoot({ actor }), not ApiKeyRouterModule')
  }
}

const OPTIONS = Symbol('options')

Module({})(ApiKeyRouterModule)
Optional()(ApiKeyRouterModule, undefined, 0)
Inject(OPTIONS)(ApiKeyRouterModule, undefined, 0)

function moduleOf(
  path: string | undefined,
  options: FactoryProvider,
  imports: DynamicModule['imports'] = [],
): DynamicModule {
  const mount = checkMountPath(path ?? '/api-keys')
  return { module: ApiKeyRouterModule, imports, providers: [options], controllers: [controllerAt(mount)] }
}

/** Decorators are called, since each module has a path of its own. No operation is deeper than two segments. */
function controllerAt(path: string): Type {
  class ApiKeyRouterController {
    private readonly api: Api

    constructor(options: Omit<ApiKeyRouterModuleOptions<object>, 'path'>, keys: ApiKeys | undefined) {
      if (!keys)
        throw new Error('ApiKeyRouterModule needs LatchkeyModule.forRoot({ keys }) in the root module')
      this.api = createApi(keys, options)
    }

    root(request: object, response: PlatformResponse): Promise<void> {
      return answer(this.api, 0, request, response)
    }

    below(request: object, response: PlatformResponse): Promise<void> {
      return answer(this.api, 1, request, response)
    }

    deeper(request: object, response: PlatformResponse): Promise<void> {
      return answer(this.api, 2, request, response)
    }
  }
  const { prototype } = ApiKeyRouterController
  for (const [name, below] of [
    ['root', ''],
    ['below', ':first'],
    ['deeper', ':first/:second'],
  ] as const) {
    All(below)(prototype, name, Object.getOwnPropertyDescriptor(prototype, name) ?? {})
    Req()(prototype, name, 0)
    Res()(prototype, name, 1)
  }
  Inject(OPTIONS)(ApiKeyRouterController, undefined, 0)
  Optional()(ApiKeyRouterController, undefined, 1)
  Inject(API_KEYS)(ApiKeyRouterController, undefined, 1)
  Public()(ApiKeyRouterController)
  Controller(path)(ApiKeyRouterController)
  return ApiKeyRouterController as Type
}

type PlatformResponse = ServerResponse | ReplyLike

/** The interface knows a request by the one of Node; the application's functions get the platform's. */
interface Api {
  readonly api: KeyManagementApi<object>
  readonly requests: WeakMap<object, object>
}

function createApi(keys: ApiKeys, options: Omit<ApiKeyRouterModuleOptions<object>, 'path'>): Api {
  checkObject('options', options, API_OPTIONS)
  const { actor, ip = addressOf } = options
  const requests = new WeakMap<object, object>()
  const requestOf = (raw: object) => requests.get(raw) ?? raw
  const api = createKeyManagementApi<object>(keys, {
    ...options,
    actor: typeof actor === 'function' ? (raw) => actor(requestOf(raw)) : actor,
    ip: typeof ip === 'function' ? (raw) => ip(requestOf(raw)) : ip,
  })
  return { api, requests }
}

async function answer(
  { api, requests }: Api,
  depth: number,
  request: object,
  response: PlatformResponse,
): Promise<void> {
  const { parts, reply, response: sent } = createExchange(request, response)
  requests.set(parts.raw, request)
  const { method = '', url = '/' } = parts.raw as IncomingMessage
  const { body: parsedBody } = request as { body?: unknown }
  const answered = await api.handle({ method, url: lastSegments(url, depth), source: parts.raw, parsedBody })
  if (reply) sendAnswerInReply(reply, answered)
  else sendAnswer(sent, answered)
}

/** The path from its last segments on, with the query: what comes before is where the application is mounted. */
function lastSegments(url: string, depth: number): string {
  const [path = '', ...query] = url.split('?')
  const segments = path.replace(/\/+$/, '').split('/')
  return [`/${depth === 0 ? '' : segments.slice(-depth).join('/')}`, ...query].join('?')
}
