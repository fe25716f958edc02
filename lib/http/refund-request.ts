import { rawRequest } from './raw-request.ts'
import { stateOf } from './request-state.ts'

/**
 * Gives back what a request spent from its key's limits and quota, once. Use it when a request failed through no fault
 * of the caller. Returns false if nothing was spent, or it was already given back.
 *
 * @throws LatchkeyError `unavailable` when the limiter cannot be reached; the cost then stays spent.
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
    if (await keys.refund?.(verified)) isRefunded = true
  }
  return isRefunded
}
