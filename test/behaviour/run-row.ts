import { expect, vi } from 'vitest'
import { forgetWarnings } from '../../lib/internal/process-warning.ts'
import { settle } from '../support/fake-clock.ts'
import { type Answer, listen } from '../support/raw-http.ts'
import type { Adapter } from './adapters/adapter.ts'
import { type Connection, openConnection } from './exchange.ts'
import { FRAMEWORK_BODY } from './expected.ts'
import { GIVENS } from './givens.ts'
import type { Outcome, Row, Step, Who } from './row.ts'
import { createTokens, type Tokens } from './tokens.ts'
import { createWorld, NUMBER_FIELD, type World } from './world.ts'

/** What comes of each step of a row under an adapter. */
export async function runRow(row: Row, adapter: Adapter): Promise<Outcome[]> {
  const world = await createWorld(row)
  forgetWarnings()
  noteWarnings(world)
  const port = await listen(await adapter.build(row.app ?? {}, world))
  if (row.app?.session) world.tokens.set('session', await logIn(port))
  const isCrowd = row.steps.some(({ times }) => times !== undefined)
  const outcomes = await (isCrowd ? runAtOnce(row, world, port) : runInTurn(row, world, port))
  return adapter.writesLowerCase ? outcomes.map(withUsualNames) : outcomes
}

/** What the programmer is told counts among the events. */
function noteWarnings({ warn }: World): void {
  vi.spyOn(process, 'emitWarning').mockImplementation((warning, ...rest: unknown[]) => {
    const { code } = (rest[0] ?? {}) as { code?: string }
    warn(code ?? String(warning))
  })
}

async function logIn(port: number): Promise<string> {
  const connection = openConnection(port)
  const answer = await connection.ask({ method: 'POST', path: '/login', lines: ['Content-Length: 0'] })
  connection.close()
  expect(answer.status).toBe(200)
  return answer
    .all('Set-Cookie')
    .map((cookie) => cookie.split(';')[0])
    .join('; ')
}

/** Lets come to pass what a row begins with, and forgets what became of that. */
async function arrange({ given = [] }: Row, world: World): Promise<void> {
  for (const name of given) await GIVENS[name](world)
  await settle()
  world.happened()
}

async function runInTurn(row: Row, world: World, port: number): Promise<Outcome[]> {
  await arrange(row, world)
  const outcomes: Outcome[] = []
  let connection: Connection | undefined
  for (const [number, step] of row.steps.entries()) {
    if (!step.ask.onSameConnection) {
      connection?.close()
      connection = undefined
    }
    connection ??= openConnection(port)
    const { answer, who } = await askOnce(step, number, world, world.tokens, connection)
    outcomes.push(toOutcome(row, step, answer, who, world.tokens, world.happened()))
  }
  connection?.close()
  return outcomes
}

/** All at once, those of the steps in turn; what happened is told of all together, with the first. */
async function runAtOnce(row: Row, world: World, port: number): Promise<Outcome[]> {
  const { steps, key } = row
  const [{ times = 1 }] = steps as [Step]
  const tokens = await Promise.all(Array.from({ length: times }, () => createTokens(world.keys, key)))
  for (const own of tokens) await arrange(row, { ...world, tokens: own })
  const answers = await Promise.all(
    tokens.flatMap((own, i) =>
      steps.map(async (step, s) => {
        const connection = openConnection(port)
        const { answer, who } = await askOnce(step, i * steps.length + s, world, own, connection)
        connection.close()
        return { s, outcome: toOutcome(row, step, answer, who, own, NOTHING) }
      }),
    ),
  )
  const { events, store, limiter } = world.happened()
  const happened = { events: countEqual(events), store: countEqual(store), limiter: countEqual(limiter) }
  return steps.map((_step, s) => {
    const [first, ...others] = answers.filter((answer) => answer.s === s).map(({ outcome }) => outcome)
    for (const other of others) expect(other).toEqual(first)
    return { ...(first as Outcome), ...(s === 0 && happened) }
  })
}

const NOTHING = { events: [], store: [], limiter: [] }

/** `find ×100` */
function countEqual(entries: readonly string[]): string[] {
  return [...new Set(entries)].map(
    (entry) => `${entry} ×${entries.filter((other) => other === entry).length}`,
  )
}

async function askOnce({ ask }: Step, number: number, world: World, tokens: Tokens, connection: Connection) {
  const lines = [...ask.lines.map(tokens.fill), `${NUMBER_FIELD}: ${number}`]
  const answer = await connection.ask({ ...ask, path: tokens.fill(ask.path ?? '/'), lines })
  for (const secret of tokens.secrets) expect(answer.text).not.toContain(secret)
  const who = await world.whoWas(number)
  // Failed attempts are counted in the background.
  await settle()
  return { answer, who }
}

function toOutcome(
  { app }: Row,
  { ask, expect: { code, by, isByRawHeaders } }: Step,
  answer: Answer,
  who: Who,
  tokens: Tokens,
  happened: Pick<Outcome, 'events' | 'store' | 'limiter'>,
): Outcome {
  const theirs = new Set(THEIRS)
  if (ask.method === 'HEAD') theirs.delete('content-length')
  // A logout may well end or replace a cookie: it is the application's own.
  if (app?.meanwhile === 'logs out') theirs.add('set-cookie')
  const isTheirs = app?.rendering !== undefined && answer.status >= 400
  if (isTheirs) theirs.add('content-type')
  const body = tokens.hide(Buffer.from(answer.body, 'latin1').toString())
  return {
    status: answer.status,
    fields: fieldsOf(answer, theirs),
    body: isTheirs ? FRAMEWORK_BODY : body,
    ...happened,
    who: JSON.parse(tokens.hide(JSON.stringify(who))) as Who,
    ...(code && { code }),
    ...(by && { by }),
    ...(isByRawHeaders && { isByRawHeaders }),
  }
}

/** What frameworks and their neighbours send of their own, whoever is asking. */
const THEIRS = [
  'access-control-allow-headers',
  'access-control-allow-methods',
  'connection',
  'content-length',
  'content-security-policy',
  'date',
  'etag',
  'keep-alive',
  'transfer-encoding',
  'vary',
  'x-content-type-options',
  'x-powered-by',
]

function fieldsOf({ lines }: Answer, theirs: ReadonlySet<string>): Record<string, string> {
  const fields: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon)
    if (theirs.has(name.toLowerCase())) continue
    const value = line.slice(colon + 2)
    fields[name] = name in fields ? `${fields[name]}, ${value}` : value
  }
  return fields
}

/** Names of header fields are in any case (RFC 9110 §5.1). */
function withUsualNames(outcome: Outcome): Outcome {
  const entries = Object.entries(outcome.fields)
  return { ...outcome, fields: Object.fromEntries(entries.map(([name, value]) => [usualName(name), value])) }
}

function usualName(name: string): string {
  const usual: Readonly<Record<string, string>> = {
    ratelimit: 'RateLimit',
    www: 'WWW',
  }
  const words = name
    .split('-')
    .map((word) => usual[word] ?? word.replace(/^[a-z]/, (first) => first.toUpperCase()))
  return words.join('-')
}
