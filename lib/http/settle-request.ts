import type { Cost } from '../core/limits/cost.ts'
import { oneOfEachName } from '../core/limits/one-of-each-name.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import { setRateLimitFields } from './header-fields.ts'
import { rawRequest, responseOf } from './raw-request.ts'
import { type ResponseFields, stateOf } from './request-state.ts'

/**
 * Replaces what a request has cost, once the work is done: as often as you like, before or after the response. A number
 * or units by name, as for `cost`; what a cost does not name keeps what it cost, and 0 gives back everything. More is
 * charged even beyond a limit: the key is then refused until it is within its limit again. The `RateLimit` fields of a
 * response that has not begun show the new state. Returns false if the request was admitted without a key, or counted on
 * nothing.
 *
 * @throws TypeError when `cost` is wrong, or names a limit that the request did not count on.
 * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The change is sent again for a minute, and made
 * once.
 * @throws LatchkeyError `unsupported` when the limiter cannot settle, or another service verified the key.
 * @example
 * app.post('/chat', apiKeyAuth(keys, { cost: { tokens: 500 } }), async (req, res) => {
 *   const { text, tokens } = await model.complete(req.body)
 *   await settle(req, { tokens })
 *   res.send(text)
 * })
 */
export async function settle(request: object, cost: Cost): Promise<boolean> {
  let isSettled = false
  for (const { keys, verified } of stateOf(rawRequest(request)).admissions ?? []) {
    const limits = (await keys.settle?.(verified, cost)) ?? []
    if (limits.length === 0) continue
    isSettled = true
    // What a place is worth does not change.
    const places = verified.limits.filter(({ type }) => type === 'concurrent')
    showLimits(request, places.length === 0 ? limits : oneOfEachName([...limits, ...places]))
  }
  return isSettled
}

/**
 * Gives back what a request spent from its key's limits and quota: `settle` with nothing. Use it when a request failed
 * through no fault of the caller. Returns false if nothing was spent, or it was already given back.
 *
 * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The refund is sent again for a minute, and made
 * once.
 * @throws LatchkeyError `unsupported` when the limiter cannot give back.
 * @example
 * app.post('/reports', apiKeyAuth(keys, { cost: 5 }), async (req, res) => {
 *   const report = await reports.create().catch(() => null)
 *   if (!report) await refund(req)
 *   res.status(report ? 201 : 502).json(report)
 * })
 */
export async function refund(request: object): Promise<boolean> {
  let isRefunded = false
  for (const { keys, verified } of stateOf(rawRequest(request)).admissions ?? []) {
    if (!(await keys.refund?.(verified))) continue
    isRefunded = true
    // It changes nothing more. A failure leaves the fields as they are.
    if (canShow(request)) showLimits(request, (await keys.settle?.(verified, 0).catch(() => [])) ?? [])
  }
  return isRefunded
}

function canShow(request: object): boolean {
  return fieldsOf(request)?.headersSent === false
}

function showLimits(request: object, limits: readonly LimitState[]): void {
  const fields = fieldsOf(request)
  const { rateLimitHeaders = false } = stateOf(rawRequest(request))
  if (fields && canShow(request)) setRateLimitFields(fields, limits, rateLimitHeaders)
}

function fieldsOf(request: object): ResponseFields | undefined {
  return stateOf(rawRequest(request)).fields ?? responseOf(request)
}
