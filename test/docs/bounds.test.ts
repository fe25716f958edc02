import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { BOUNDS } from '../../lib/core/keys/bounds.ts'

const PAGE = fileURLToPath(new URL('../../docs/bounds.md', import.meta.url))

/** What each bound is one of, as a person would say it. */
const MEANINGS: { readonly [name in keyof typeof BOUNDS]: readonly [field: string, unit: string] } = {
  name: ['`name`', 'characters'],
  ownerType: ['`owner.type`', 'characters'],
  ownerId: ['`owner.id`', 'characters'],
  createdBy: ['`createdBy`', 'characters'],
  reason: ['`reason` of a revocation', 'characters'],
  permissions: ['resources in `permissions`, and actions on each', ''],
  rateLimits: ['entries of `rateLimits`', ''],
  limit: ['`rateLimits[].limit`', ''],
  burst: ['`rateLimits[].burst`', ''],
  windowMs: ['`rateLimits[].windowMs`', 'milliseconds'],
  remaining: ['`quota.remaining`', ''],
  refillAmount: ['`quota.refill.amount`', ''],
  refillEveryMs: ['`quota.refill.everyMs`', 'milliseconds'],
  allowedIps: ['entries of `allowedIps`', ''],
  idleExpiryMs: ['`idleExpiryMs`', 'milliseconds'],
  graceMs: ['`graceMs` of a rotation', 'milliseconds'],
  cost: ['`cost` of a verification', ''],
}

const DAY_MS = 86_400_000

function render(): string {
  const number = (value: number) => value.toLocaleString('en-US')
  const rows = Object.entries(MEANINGS).map(([name, [field, unit]]) => {
    const { min, max } = BOUNDS[name as keyof typeof BOUNDS]
    const days = unit === 'milliseconds' ? ` (${number(max / DAY_MS)} days)` : ''
    return `| ${field} | ${number(min)} | ${number(max)}${days} | ${unit} |`
  })
  return `# Bounds

<!-- Made by test/docs/bounds.test.ts; UPDATE_DOCS=1 npx vitest run test/docs/bounds.test.ts makes it anew. -->

How long, large and many everything may be that is set on a key. \`keys\`, the HTTP interface and its OpenAPI document go by the same
numbers. A character is a code point: an emoji is one.

| what | at least | at most | of |
| --- | --- | --- | --- |
${rows.join('\n')}

A name of a limit has 1 to 32 letters, digits, \`_\` and \`-\`; a resource or an action up to 64 letters, digits and \`_ . : / -\`, or it is
\`*\`. \`metadata\` has at most 131,072 characters of JSON in 64 levels. Over HTTP a page has 1 to 100 keys, and a body
\`maxBodyBytes\`.
`
}

it('docs/bounds.md says what the table says', () => {
  const page = render()
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page)
  expect(readFileSync(PAGE, 'utf8')).toBe(page)
})
