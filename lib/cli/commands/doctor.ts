import type { Command } from 'commander'
import type { Act } from '../act.ts'
import type { Context } from '../context.ts'
import { describeError, firstLine } from '../describe-error.ts'
import { clockFinding } from '../doctor/check-clock.ts'
import { checkConfiguration } from '../doctor/check-configuration.ts'
import { checkRedisServer, readInfo } from '../doctor/check-redis.ts'
import { checkLimiter, checkPeppers } from '../doctor/check-sharing.ts'
import { checkStore, redisTime } from '../doctor/check-store.ts'
import { checkUses } from '../doctor/check-uses.ts'
import { type Finding, findings } from '../doctor/finding.ts'
import { EXIT } from '../exit-codes.ts'
import { type Configuration, otherOptions } from '../load-config.ts'
import { type LimiterRedis, limiterOf, maxAgeOf, openLimiterRedis } from '../open-session.ts'
import type { OpenStore } from '../open-store.ts'
import type { Style } from '../output.ts'
import { styleOf } from '../show-key.ts'
import { renderTable } from '../table.ts'

export function addDoctor(program: Command, act: Act): void {
  program
    .command('doctor')
    .description('say what is wrong with the set-up; changes nothing')
    .action(act(examine))
}

async function examine(context: Context): Promise<number> {
  const { output } = context
  const configuration = await context.configuration()
  const found: Finding[] = [...checkConfiguration(configuration)]
  for await (const some of examineParts(context, configuration)) found.push(...some)
  const masked = found.map((finding) => ({ ...finding, message: output.mask(finding.message) }))
  const hasProblem = masked.some(({ result }) => result === 'problem')
  if (output.isJson) await output.printJson({ healthy: !hasProblem, findings: masked })
  else await output.print(tableOf(context, masked))
  return hasProblem ? EXIT.failed : EXIT.ok
}

async function* examineParts(
  context: Context,
  configuration: Configuration,
): AsyncGenerator<readonly Finding[]> {
  const store = await openStore(context)
  const ofStore = 'store' in store ? await checkStore(store) : [store]
  yield ofStore
  const limiterRedis = await openRedis(context, configuration)
  if (limiterRedis && 'redis' in limiterRedis) yield await checkLimiterRedis(limiterRedis)
  else if (limiterRedis) yield [limiterRedis]
  // The rest asks the store.
  if (
    !('store' in store) ||
    ofStore.some(({ check, result }) => /^(?:store|tables)$/.test(check) && result === 'problem')
  )
    return
  const redis = limiterRedis && 'redis' in limiterRedis ? limiterRedis : null
  yield* examineKeys(context, configuration, store, redis)
}

async function* examineKeys(
  { io }: Context,
  configuration: Configuration,
  { store }: OpenStore,
  redis: LimiterRedis | null,
): AsyncGenerator<readonly Finding[]> {
  const { keys } = configuration.given
  const options = otherOptions(configuration, io.env)
  // The parts of the application's own `keys` are not to be seen.
  if (!keys) {
    yield await checkPeppers(store, options.peppers ?? [])
    const isNamed = redis !== null || configuration.redis === undefined
    if (isNamed) yield [await checkLimiter(store, limiterOf(configuration, redis), maxAgeOf(options))]
  }
  yield await checkUses(store)
}

/** The store, or what is wrong where it cannot be opened. @throws CliError for a wrong configuration */
async function openStore(context: Context): Promise<OpenStore | Finding> {
  try {
    return await context.openStore()
  } catch (error) {
    if (describeError(error).exitCode === EXIT.usage) throw error
    return findings('store').problem(firstLine(error))
  }
}

/** Null where none is configured; what is wrong where it cannot be opened. */
async function openRedis(
  context: Context,
  configuration: Configuration,
): Promise<LimiterRedis | Finding | null> {
  try {
    const opened = await openLimiterRedis(context.io, context.output, configuration)
    if (opened) context.atEnd(() => opened.redis.close())
    return opened
  } catch (error) {
    return findings('Redis').problem(firstLine(error))
  }
}

async function checkLimiterRedis({ redis }: LimiterRedis): Promise<readonly Finding[]> {
  const reach = findings('Redis')
  try {
    const clock = await clockFinding('Redis', () => redisTime(redis.command))
    return [reach.ok(redis.shown), ...checkRedisServer('limiter', await readInfo(redis.command)), clock]
  } catch (error) {
    return [reach.problem(firstLine(error))]
  }
}

const STYLES: Readonly<Record<Finding['result'], Style>> = {
  ok: 'green',
  problem: 'red',
  warning: 'yellow',
  unknown: 'dim',
}

function tableOf({ output }: Context, found: readonly Finding[]): string {
  const columns = [
    { title: 'CHECK' },
    {
      title: 'RESULT',
      paint: (result: string) => output.paint(STYLES[result as Finding['result']] ?? 'dim', result),
    },
    { title: 'FOUND' },
  ]
  return renderTable(
    columns,
    found.map(({ check, result, message }) => [check, result, message]),
    styleOf(output),
  )
}
