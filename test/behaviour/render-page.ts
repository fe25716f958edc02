import { STATUS_CODES } from 'node:http'
import type { AdapterName } from './adapters/adapter.ts'
import { DIFFERENCES } from './differences.ts'
import { FRAMEWORK_BODY } from './expected.ts'
import type { Outcome, Row, Step, Who } from './row.ts'
import type { Section } from './rows/index.ts'

/** What every adapter has answered to the steps of a row; the first adapter is the one that the page shows. */
export type Answers = ReadonlyMap<Row, ReadonlyMap<AdapterName, readonly Outcome[]>>

/** The page that shows the table, made of what was answered and not of what was expected. */
export function renderPage(sections: readonly Section[], answers: Answers): string {
  const standards = findStandards(answers)
  const examples = findExamples(answers)
  return [
    INTRODUCTION,
    '## The frameworks\n',
    ...renderAdapters(),
    '## Answers by code\n',
    'A refusal is answered so, unless a row says otherwise.\n',
    ...[...standards].map(([code, outcome]) => `### \`${code}\`\n\n${toHttp(outcome)}`),
    '## Differences\n',
    'Rows refer to these by number. There are no others: a test fails on one.\n',
    ...DIFFERENCES.map(({ name, adapters, reason }, i) => {
      const example = examples.get(i)
      if (!example) throw new Error(`no answer shows the difference "${name}"`)
      return `${i + 1}. **${name}**, of ${adapters.map(code).join(' and ')}. ${reason}\n\n${indent(toHttp(example))}`
    }),
    ...sections.flatMap(({ title, rows }) => [
      `## ${title}\n`,
      ...rows.map((row) => renderRow(row, answers, standards)),
    ]),
  ].join('\n')
}

const INTRODUCTION = `# Behaviour

<!-- Made by test/behaviour; UPDATE_DOCS=1 npx vitest run test/behaviour makes it anew. -->

One table of requests and answers, which runs unchanged against every framework, with real HTTP. This page is what they
have answered. It says of each request what is answered, and what became of it besides:

- **Answer**: the status and, of a refusal, the code of its problem body. A route that is reached answers 200 and says in
  JSON who is asking, as the last column does. Header fields are named where they are not those of the code, below. Fields
  that frameworks send of their own, such as \`Date\` and \`ETag\`, are left out; there are no others, and so no cookies.
- **Besides**: events by type, code and reason; calls of the store; calls of the limiter with the cost that they asked for
  and what they were answered; warnings to the programmer. Of requests at once, the first says it of all.
- **Who**: what \`getAuth\` says once the request has been answered, and what \`user\`, \`authMethod\` and \`apiKey\` show where that
  is something else.

\`<key>\` stands for a key of Alice's, \`<session>\` for the cookie of her login. Other keys are: unknown (no such id), wrong (that
id with another secret), malformed (a checksum that does not fit). Requests come from 127.0.0.1. Where nothing else is said,
the application authenticates every request by its key, and nothing was asked before. Otherwise it is described so:

| \`keys\` | |
| --- | --- |
| \`'optional'\` | a request without a key passes unauthenticated: \`required: false\`, or with Passport a callback that lets it pass |
| \`'overruled'\` | a refusal is not the end, as where another strategy follows in an array; what the guard makes of it is what counts |
| \`'none'\` | nothing reads keys |

| besides | |
| --- | --- |
| \`rewrites\` | what a middleware before the keys makes of header fields: it deletes those that are \`null\` |
| \`reads\`, \`finds\` | options of the middleware or the strategy; what \`resolveUser\` finds |
| \`asks\`, \`asksAgain\` | what the route asks of a key; what a second authentication of the same request asks |
| \`session\` | a login session, restored and marked before or behind the keys, or not marked |
| \`guard\`, \`guardFirst\` | the guard before the route; whether it stands before everything, by mistake |
| \`meanwhile\` | what another middleware does between the keys and the guard |
| \`rendering\` | refusals are handed on as errors, and no handler of ours answers them |
| \`proxies\` | how many proxies are trusted: Express's \`trust proxy\`, Koa's \`proxy\` and \`maxIpsCount\` |
| \`cors\` | the usual middleware for CORS is mounted first |
`

function renderAdapters(): string[] {
  const rows: readonly (readonly [string, string])[] = [
    ['Express 5, Express 4', '`app.use(apiKeyAuth(keys))`'],
    ['…, Passport', "`app.use(passport.authenticate('apikey'))`, and no error handler"],
    ['…, Passport with errors', "the same with `refuseWith: 'error'` and `apiKeyErrorHandler()`"],
    ['Koa 3, Koa 2', '`app.use(apiKeyAuth(keys))`'],
    [
      '…, koa-passport',
      "`app.use(passport.authenticate('apikey'))` of koa-passport 6, which has a Passport of its own",
    ],
    ['…, koa-passport with errors', "the same with `refuseWith: 'error'` and `apiKeyErrorHandler()`"],
    ['Nest 12', '`@nestjs/passport`, with the guard and the filter of [the recipe](nest.md)'],
  ]
  return ['| framework | how keys are read |', '| --- | --- |', ...rows.map((cells) => tableLine(cells)), '']
}

/** The first outcome of every code, as the first adapter has it. */
function findStandards(answers: Answers): Map<string, Outcome> {
  const standards = new Map<string, Outcome>()
  for (const [, byAdapter] of answers) {
    for (const outcome of shownOf(byAdapter)) {
      const { code, body } = outcome
      if (code && body !== '' && body !== FRAMEWORK_BODY && !standards.has(code)) standards.set(code, outcome)
    }
  }
  return standards
}

/** An answer that shows each difference, by its place in the list. */
function findExamples(answers: Answers): Map<number, Outcome> {
  const examples = new Map<number, Outcome>()
  for (const [row, byAdapter] of answers) {
    for (const i of row.steps.keys()) {
      for (const [adapter, difference] of differencesOf(byAdapter, i)) {
        if (!examples.has(difference)) examples.set(difference, outcomeOf(byAdapter, adapter, i))
      }
    }
  }
  return examples
}

/** Which adapters have answered a step otherwise than the first one, and the difference that says why. */
function differencesOf(
  byAdapter: ReadonlyMap<AdapterName, readonly Outcome[]>,
  step: number,
): [AdapterName, number][] {
  const shown = shownOf(byAdapter)[step] as Outcome
  return [...byAdapter.keys()].flatMap((adapter): [AdapterName, number][] => {
    if (isEqual(outcomeOf(byAdapter, adapter, step), shown)) return []
    const found = DIFFERENCES.findIndex(({ adapters, change }) => adapters.includes(adapter) && change(shown))
    if (found === -1) throw new Error(`${adapter} answers otherwise, and no difference says why`)
    return [[adapter, found]]
  })
}

function renderRow(row: Row, answers: Answers, standards: ReadonlyMap<string, Outcome>): string {
  const byAdapter = answers.get(row)
  if (!byAdapter) throw new Error(`nobody has answered "${row.title}"`)
  const lines = row.steps.map((step, i) => {
    const outcome = shownOf(byAdapter)[i] as Outcome
    const numbers = [...new Set(differencesOf(byAdapter, i).map(([, difference]) => difference + 1))].sort()
    const notes = numbers.map((number) => `[${number}](#differences)`).join(' ')
    return tableLine([
      renderRequest(step),
      [renderAnswer(outcome, standards), notes].filter(Boolean).join(' '),
      renderBesides(outcome),
      renderWho(outcome.who),
    ])
  })
  const head = ['| Request | Answer | Besides | Who |', '| --- | --- | --- | --- |']
  return [`### ${headingOf(row)}\n`, ...renderSetting(row), ...head, ...lines, ''].join('\n')
}

/** With a capital, unless it begins with the name of a function. */
function headingOf({ title }: Row): string {
  return /^\w+\(/.test(title) ? title : title.charAt(0).toUpperCase() + title.slice(1)
}

/** What is out of the ordinary before the first request. */
function renderSetting({ given = [], keys, key, app, limiter }: Row): string[] {
  const told = [
    given.length > 0 && `Before: ${given.join('; ')}.`,
    keys && `Options of \`createApiKeys\`: \`${toCode(keys)}\`.`,
    limiter && `Limiter: Redis, ${limiter}.`,
    key && `The key: \`${toCode(key)}\`.`,
    app && `The application: \`${toCode(app)}\`.`,
  ].filter((line) => typeof line === 'string')
  return told.length > 0 ? [`${told.join('  \n')}\n`] : []
}

function renderRequest({
  ask: { method = 'GET', path = '/', lines, onSameConnection },
  times,
}: Step): string {
  const target = method !== 'GET' || path !== '/' ? [code(`${method} ${path}`)] : []
  const sent = [...target, ...lines.map((line) => code(shorten(line)))]
  return [
    sent.length > 0 ? sent.join('<br>') : 'no key',
    ...(onSameConnection ? ['on the same connection'] : []),
    ...(times ? [`${times} times, at once`] : []),
  ].join('<br>')
}

function renderAnswer(outcome: Outcome, standards: ReadonlyMap<string, Outcome>): string {
  const { status, code: refused, body, fields } = outcome
  const standard = refused ? standards.get(refused) : undefined
  const usual = standard ?? { body: JSON.stringify(outcome.who), fields: USUAL_FIELDS }
  const other = Object.entries(fields).filter(([name, value]) => usual.fields[name] !== value)
  const missing = Object.keys(usual.fields).filter((name) => !(name in fields))
  return [
    refused ? `${status} ${code(refused)}` : String(status),
    ...other.map(([name, value]) => code(`${name}: ${value}`)),
    ...(body === FRAMEWORK_BODY
      ? ['rendered by the framework']
      : missing
          .filter((name) => status !== 204 || name !== 'Content-Type')
          .map((name) => `no ${code(name)}`)),
    ...(body === '' ? ['no body'] : body === FRAMEWORK_BODY || body === usual.body ? [] : [code(body)]),
  ].join('<br>')
}

const USUAL_FIELDS: Readonly<Record<string, string>> = { 'Content-Type': 'application/json; charset=utf-8' }

function renderBesides({ events, store, limiter }: Outcome): string {
  const told = [
    ...events.map((event) => (event.startsWith('warning') ? code(event) : `event ${code(event)}`)),
    ...store.map((call) => `store ${code(call)}`),
    ...limiter.map((call) => `limiter ${code(call)}`),
  ]
  return told.length > 0 ? told.join('<br>') : 'nothing'
}

function renderWho({ method, code: refused, user, key, shows }: Who): string {
  return [
    code(refused ? `${method} ${refused}` : method),
    ...(user === undefined ? [] : [`user ${code(toCode(user))}`]),
    ...(key === undefined ? [] : [`key ${code(key)}`]),
    ...(shows ? [`shows ${code(toCode(shows))}`] : []),
  ].join('<br>')
}

function toHttp({ status, fields, body }: Outcome): string {
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    ...Object.entries(fields).map(([n, v]) => `${n}: ${v}`),
  ]
  return `\`\`\`http\n${[...head, '', body.trimEnd()].join('\n')}\n\`\`\`\n`
}

/** As one would write it in a program. */
function toCode(value: unknown): string {
  if (value instanceof Date) return `new Date('${value.toISOString()}')`
  if (typeof value === 'function') return String(value).replaceAll(/\s+/g, ' ')
  if (typeof value === 'string') return `'${value}'`
  if (Array.isArray(value)) return `[${value.map(toCode).join(', ')}]`
  if (typeof value !== 'object' || value === null) return String(value)
  const entries = Object.entries(value).map(([name, member]) => {
    const isMethod = typeof member === 'function' && toCode(member).startsWith(name)
    return isMethod ? toCode(member) : `${name}: ${toCode(member)}`
  })
  return entries.length > 0 ? `{ ${entries.join(', ')} }` : '{}'
}

function shorten(line: string): string {
  const text = line.replaceAll('\u00a0', '\\xa0')
  return text.length <= 100 ? text : `${text.slice(0, 40)}… (${text.length} characters)`
}

function code(text: string): string {
  return `\`${text.replaceAll('|', '\\|')}\``
}

function tableLine(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}

function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '   ')
}

function shownOf(byAdapter: ReadonlyMap<AdapterName, readonly Outcome[]>): readonly Outcome[] {
  const [first = []] = byAdapter.values()
  return first
}

function outcomeOf(
  byAdapter: ReadonlyMap<AdapterName, readonly Outcome[]>,
  adapter: AdapterName,
  step: number,
): Outcome {
  return byAdapter.get(adapter)?.[step] as Outcome
}

function isEqual(one: Outcome, other: Outcome): boolean {
  const text = ({ fields, ...outcome }: Outcome) => JSON.stringify([outcome, Object.entries(fields).sort()])
  return text(one) === text(other)
}
