import {
  type DynamicModule,
  type FactoryProvider,
  Inject,
  Module,
  type ModuleMetadata,
  type OnModuleInit,
  Optional,
} from '@nestjs/common'
import { APP_FILTER, APP_GUARD, ModulesContainer, Reflector } from '@nestjs/core'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { methodWithoutGuard } from './access.ts'
import { Gatekeeper, type LatchkeyModuleOptions } from './gatekeeper.ts'
import type { HttpRequest } from './http-exchange.ts'
import { LatchkeyGuard } from './latchkey.guard.ts'
import { LatchkeyExceptionFilter, NoFilter } from './latchkey-exception.filter.ts'
import { API_KEYS, GATEKEEPER } from './tokens.ts'

/** The options of `LatchkeyModule` as a provider makes them. */
export interface LatchkeyModuleAsyncOptions<User = unknown, Request = HttpRequest>
  extends Pick<ModuleMetadata, 'imports'>,
    Pick<FactoryProvider, 'inject'> {
  /** Returns the options, given what `inject` names. */
  useFactory: (...dependencies: never[]) => Awaitable<LatchkeyModuleOptions<User, Request>>
}

/**
 * API keys and sessions for every route of a Nest application, on Express and on Fastify. Import it once, in the root module: it is
 * global. It adds `LatchkeyGuard` and `LatchkeyExceptionFilter` to the application.
 */
export class LatchkeyModule {
  /**
   * @throws TypeError when an option is wrong or unknown, naming it.
   * @example
   * @Module({ imports: [LatchkeyModule.forRoot({ keys, resolveUser: (apiKey) => users.find(apiKey.owner.id) })] })
   * export class AppModule {}
   */
  static forRoot<User = unknown, Request = HttpRequest>(
    options: LatchkeyModuleOptions<User, Request>,
  ): DynamicModule {
    const gatekeeper = new Gatekeeper(options)
    // Nest 10 would write a value out, with all that keys hold.
    return moduleOf({ provide: GATEKEEPER, useFactory: () => gatekeeper })
  }

  /**
   * The same with options that a provider makes. What `forRoot` would throw, the application throws when it starts.
   *
   * @throws TypeError when an option of `forRootAsync` itself is wrong or unknown.
   * @example
   * LatchkeyModule.forRootAsync({
   *   imports: [UsersModule],
   *   inject: [API_KEYS_OF_MINE, Users],
   *   useFactory: (keys: ApiKeys, users: Users) => ({ keys, resolveUser: (apiKey) => users.find(apiKey.owner.id) }),
   * })
   */
  static forRootAsync<User = unknown, Request = HttpRequest>(
    options: LatchkeyModuleAsyncOptions<User, Request>,
  ): DynamicModule {
    checkObject('options', options, ['imports', 'inject', 'useFactory'])
    const { imports, inject = [], useFactory } = options
    checkFunction('useFactory', useFactory)
    const make = useFactory as (...dependencies: unknown[]) => Awaitable<LatchkeyModuleOptions<User, Request>>
    return moduleOf(
      {
        provide: GATEKEEPER,
        inject,
        useFactory: async (...dependencies: unknown[]) => new Gatekeeper(await make(...dependencies)),
      },
      imports,
    )
  }

  /** Nest calls it. */
  constructor(check?: unknown) {
    if (!check) {
      throw new Error('import LatchkeyModule.forRoot({ keys }), not LatchkeyModule: it guards nothing')
    }
  }
}

/** Refuses, when the application starts, what would leave routes open or shut. */
class StartCheck implements OnModuleInit {
  constructor(private readonly modules: ModulesContainer) {}

  onModuleInit(): void {
    const all = [...this.modules.values()].filter(({ metatype }) => MODULE in metatype)
    if (all.length > 1) throw new Error(TWICE)
    // Nest 10 and 11 never run a guard of the application that depends on a request.
    const isOfRequest = all.some(({ providers }) => !providers.get(GATEKEEPER)?.isDependencyTreeStatic())
    if (isOfRequest) throw new Error(OF_REQUEST)
    for (const { providers } of all) {
      const gatekeeper = providers.get(GATEKEEPER)?.instance as Gatekeeper | undefined
      if (!gatekeeper?.globalGuard) this.checkGuards()
    }
  }

  /** Without the guard of the application, a route has only the guard that its decorator brings. */
  private checkGuards(): void {
    for (const { controllers } of this.modules.values()) {
      for (const { instance, metatype } of controllers.values()) {
        if (!metatype || !instance) continue
        const name = methodWithoutGuard(instance, metatype)
        if (name !== undefined) throw new Error(unguarded(name, metatype.name))
      }
    }
  }
}

/** On the class of every copy of this package. */
const MODULE = Symbol.for('latchkey.nest.module')

const TWICE =
  'LatchkeyModule is imported twice, and each would check every request. Import it once, in the root module: it is global. ' +
  'If you do, two copies of latchkey are loaded: see "npm ls latchkey", and load one of them, as ESM or as CommonJS'

const OF_REQUEST =
  'LatchkeyModule cannot take options that are made for each request: let useFactory inject no request-scoped provider'

function unguarded(method: string, controller: string): string {
  return (
    `nothing guards "${method}" of ${controller}: another decorator or the constructor puts a function without its metadata in its place. ` +
    'Copy the metadata, or leave "globalGuard" on'
  )
}

Object.defineProperty(LatchkeyModule, MODULE, { value: true })
Inject(ModulesContainer)(StartCheck, undefined, 0)
Module({})(LatchkeyModule)
Optional()(LatchkeyModule, undefined, 0)
Inject(StartCheck)(LatchkeyModule, undefined, 0)

let made = 0

function moduleOf(gatekeeper: FactoryProvider, imports: DynamicModule['imports'] = []): DynamicModule {
  checkNest()
  made += 1
  return {
    module: LatchkeyModule,
    global: true,
    imports,
    providers: [
      gatekeeper,
      StartCheck,
      // By the number, Nest 10 tells two modules apart whose functions have the same text.
      { provide: 'number', useValue: made },
      LatchkeyGuard,
      { provide: API_KEYS, inject: [GATEKEEPER], useFactory: ({ keys }: Gatekeeper) => keys },
      {
        provide: APP_GUARD,
        inject: [GATEKEEPER, LatchkeyGuard],
        useFactory: ({ globalGuard }: Gatekeeper, guard: LatchkeyGuard) =>
          globalGuard ? guard : { canActivate: () => true },
      },
      {
        provide: APP_FILTER,
        inject: [GATEKEEPER],
        useFactory: ({ refuseWith }: Gatekeeper) =>
          refuseWith === 'problem' ? new LatchkeyExceptionFilter() : new NoFilter(),
      },
    ],
    exports: [API_KEYS, GATEKEEPER],
  }
}

/** @throws Error on an older Nest, which does not tell its version. */
function checkNest(): void {
  if (typeof Reflector.createDecorator === 'function') return
  throw new Error(
    'latchkey/nest works with Nest 10, 11 and 12, and this is an older one: npm install @nestjs/common@12 @nestjs/core@12',
  )
}
