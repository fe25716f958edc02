import { STATUS_CODES } from 'node:http'
import type { AdapterName } from './adapters/adapter.ts'
import { BY_KEY, FRAMEWORK_BODY, passes, WARM } from './expected.ts'
import type { Outcome } from './row.ts'

/** What an adapter answers otherwise than the table says, and why it has to. */
export interface Difference {
  readonly name: string
  readonly adapters: readonly AdapterName[]
  readonly reason: string
  /** What the outcome is instead; null where it is as the table says. */
  change(outcome: Outcome): Outcome | null
}

/** Each is said once; one that no row needs is an error, as is a row that needs one that is not here. */
export const DIFFERENCES: readonly Difference[] = [
  {
    name: 'Passport’s body',
    adapters: ['Express 5, Passport', 'Express 4, Passport'],
    reason:
      "With `refuseWith: 'fail'`, a later strategy may still succeed. So Passport itself writes the " +
      "refusal, and only has the text of the status. `refuseWith: 'error'` and " +
      '`apiKeyErrorHandler()` answer with problem bodies.',
    change: (outcome) => (isFail(outcome) ? withBody(outcome, textOf(outcome), undefined) : null),
  },
  {
    name: 'Express’s error page',
    adapters: ['Express 5, Passport', 'Express 4, Passport'],
    reason:
      '429 and 503 stop Passport’s chain with an error. These applications have no error handler, so Express renders ' +
      'it as a page, with the header fields of the error. `apiKeyErrorHandler()` answers with problem bodies.',
    change: (outcome) =>
      isHalt(outcome) ? withBody(outcome, errorPage(titleOf(outcome)), 'text/html; charset=utf-8') : null,
  },
  {
    name: 'koa-passport’s body',
    adapters: ['Koa 3, koa-passport'],
    reason:
      'The same as Passport’s body, but for koa-passport: the text of the status, with a `Content-Type` from Koa. ' +
      "`refuseWith: 'error'` and `apiKeyErrorHandler()` answer with problem bodies, as does `apiKeyAuth` without " +
      'koa-passport.',
    change: (outcome) => (isFail(outcome) ? withBody(outcome, textOf(outcome), PLAIN) : null),
  },
  {
    name: 'Koa’s error text',
    adapters: ['Koa 3, koa-passport'],
    reason:
      '429 and 503 stop the chain with an error, which Koa renders: as the title of the error below 500, otherwise as ' +
      'the text of the status, with the header fields of the error. `apiKeyErrorHandler()` answers with problem bodies.',
    change: (outcome) =>
      isHalt(outcome)
        ? withBody(outcome, outcome.status < 500 ? titleOf(outcome) : textOf(outcome), PLAIN)
        : null,
  },
  {
    name: 'Koa’s plain values',
    adapters: ['Koa 3', 'Koa 2', 'Koa 3, koa-passport', 'Koa 3, koa-passport with errors'],
    reason:
      '`ctx.state.authMethod` and `ctx.state.apiKey` are plain values, which any middleware can overwrite. `getAuth` ' +
      'and the guards use the mark instead. So this page compares only `ctx.state.apiKey`.',
    change: ({ who: { shows, ...who }, ...outcome }) => {
      if (shows?.authMethod === undefined) return null
      const { authMethod: _, ...others } = shows
      return { ...outcome, who: Object.keys(others).length > 0 ? { ...who, shows: others } : who }
    },
  },
  {
    name: 'Hono’s HEAD',
    adapters: ['fetch, Hono'],
    reason:
      'Hono answers HEAD with the response to GET without its body, and so does not know the length of a body that ' +
      'the route made. Refusals name theirs.',
    change: (outcome) => {
      const { 'Content-Length': length, ...fields } = outcome.fields
      return length === undefined || outcome.code ? null : { ...outcome, fields }
    },
  },
  {
    name: 'fields of a web `Request`',
    adapters: ['fetch, node:http', 'fetch, Hono'],
    reason:
      'A web `Request` shows header fields as they are now, and nothing of what was sent. A field that was sent twice is ' +
      'refused, unless a middleware replaced both by one before keys are read.',
    change: ({ isByRawHeaders, code }) =>
      isByRawHeaders && code ? { ...passes(BY_KEY, WARM), isByRawHeaders, code } : null,
  },
]

const PLAIN = 'text/plain; charset=utf-8'

/** A refusal that Passport may go on from. */
function isFail({ code, by, status, body }: Outcome): boolean {
  return code !== undefined && by !== 'guard' && body !== FRAMEWORK_BODY && [400, 401, 403].includes(status)
}

/** A refusal that halts Passport's chain. */
function isHalt({ code, by, status, body }: Outcome): boolean {
  return code !== undefined && by !== 'guard' && body !== FRAMEWORK_BODY && [429, 503].includes(status)
}

function withBody(outcome: Outcome, body: string, type: string | undefined): Outcome {
  const { 'Content-Type': _problem, 'Content-Length': length, ...fields } = outcome.fields
  const isHead = length !== undefined
  return {
    ...outcome,
    body: isHead ? '' : body,
    fields: {
      ...fields,
      ...(type !== undefined && { 'Content-Type': type }),
      ...(isHead && type !== undefined && { 'Content-Length': String(body.length) }),
    },
  }
}

function textOf({ status }: Outcome): string {
  return STATUS_CODES[status] ?? ''
}

function titleOf({ body }: Outcome): string {
  return (JSON.parse(body) as { title: string }).title
}

/** Of an application that is not in production: there it holds the text of the status alone. */
function errorPage(message: string): string {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
</head>
<body>
<pre>LatchkeyError: ${message}</pre>
</body>
</html>
`
}
